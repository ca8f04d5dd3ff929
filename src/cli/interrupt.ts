type Ending = "SIGINT" | "SIGTERM";

/** Exit codes as shells give them: 128 and the signal's number. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/** Work that was ended from outside, as `main` reports it. */
export class Interrupted extends Error {
  override name = "Interrupted";

  constructor(
    readonly signal: Ending,
    message = `stopped by ${signal}`,
  ) {
    super(message);
  }

  get exitCode(): number {
    return EXIT_CODES[this.signal];
  }
}

/**
 * Turns the first Ctrl-C, or the SIGTERM with which schedulers announce the end, into an abort with `Interrupted`,
 * so that work can end whole. The second ends the process at once.
 */
export function interruptible(): { readonly signal: AbortSignal; stop(): void } {
  const controller = new AbortController();
  const stop = () => {
    process.off("SIGINT", end).off("SIGTERM", end);
  };
  const end = (signal: Ending) => {
    stop();
    controller.abort(new Interrupted(signal));
  };
  process.on("SIGINT", end).on("SIGTERM", end);
  return { signal: controller.signal, stop };
}
