import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { BackendError } from "../../errors.js";
import type { Measurement } from "./case.js";
import type { Answer, Introduction, Order } from "./serve.js";

/** Who takes part, and how its process is started. */
export interface ContenderSpec {
  readonly who: string;
  readonly variant: Measurement["variant"];
  readonly backend: string;
  /** The program and its arguments. */
  readonly command: readonly [string, ...string[]];
  /** The dtypes that it does of each suite. */
  readonly does: Readonly<Record<string, readonly string[]>>;
  /** Whether it runs on one thread, however many there are. */
  readonly singleThreaded?: boolean;
  /** Whether every case needs a new process. */
  readonly fresh?: boolean;
}

/** For people: `oriflamme, revectorized`. */
export function contenderName({ who, variant }: Pick<ContenderSpec, "who" | "variant">): string {
  return variant === null ? who : `${who}, ${variant}`;
}

/** A contender's process. It sleeps between orders. */
export class Contender {
  #child: ChildProcess | undefined;
  #answers: AsyncIterator<string> | undefined;
  /** What ended the process. */
  #end: string | undefined;

  private constructor(readonly spec: ContenderSpec) {}

  /**
   * Starts the process and waits until it is ready.
   * @throws BackendError where it cannot take part, RangeError where the options are to blame
   */
  static async start(spec: ContenderSpec): Promise<{ contender: Contender; introduction: Introduction }> {
    const contender = new Contender(spec);
    return { contender, introduction: await contender.restart() };
  }

  /** Goes on in a new process. */
  async restart(): Promise<Introduction> {
    this.dispose();
    const [program, ...args] = this.spec.command;
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#child = child;
    this.#end = undefined;
    child.on("error", (error) => {
      this.#end ??= error.message;
    });
    child.on("exit", (code, signal) => {
      this.#end ??= `its process ended with ${signal ?? `code ${code}`}`;
    });
    // A contender that has died is found out by its missing answer.
    child.stdin.on("error", () => {});
    this.#answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    try {
      const message = await this.#next();
      if (message.unavailable !== undefined) {
        const reason = String(message.unavailable);
        throw message.usage ? new RangeError(reason) : new BackendError(reason);
      }
      return message.ready as Introduction;
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** @throws BackendError where the contender fails */
  async ask(order: Order): Promise<Answer> {
    this.#child?.stdin?.write(`${JSON.stringify(order)}\n`);
    const message = await this.#next();
    if (message.error !== undefined) throw new BackendError(String(message.error));
    return message as unknown as Answer;
  }

  async #next(): Promise<Record<string, unknown>> {
    const line = await this.#answers?.next();
    if (!line || line.done) {
      // The reason comes a moment after the end of its output.
      await new Promise((resolve) => setTimeout(resolve, 100));
      throw new BackendError(this.#end ?? "it ended without an answer");
    }
    try {
      return JSON.parse(line.value);
    } catch {
      throw new BackendError(`it answered '${line.value.slice(0, 80)}'`);
    }
  }

  dispose(): void {
    this.#child?.kill();
  }
}
