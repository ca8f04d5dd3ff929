import { createInterface } from "node:readline";
import { Bench } from "tinybench";
import type { BenchCase } from "./case.js";

/**
 * The contender's side of a comparison. It runs in a process of its own and speaks lines of JSON: it says
 * `{"ready": {…}}` or `{"unavailable": reason, "usage"}` (whether the options are to blame), then answers each order
 * with `{"times", "sample"}` or `{"error": reason}`.
 */

/** What the parent asks for, a line each. */
export interface Order {
  readonly case: BenchCase;
  /** Least milliseconds, and least passes, to measure. */
  readonly milliseconds: number;
  readonly passes: number;
}

/** What a contender answers an order with. */
export interface Answer {
  /** Seconds of each pass. */
  readonly times: readonly number[];
  /** A few numbers of the result, for comparison; with the first answer of a case only. */
  readonly sample?: readonly number[];
}

/** What a contender says of itself when it is ready. */
export interface Introduction {
  /** For people: versions and builds. */
  readonly description: string;
  /** The variant that it really runs, where it has several. */
  readonly variant?: string;
}

/** A case that is set up: its operands are in place. */
export interface Prepared {
  /** Results that do not depend on how often `measure` has run; called once, before it. */
  sample(): Promise<ArrayLike<number>>;
  measure(order: Order): Promise<readonly number[]>;
  dispose(): void;
}

export interface ServerOptions extends Introduction {
  prepare(benchCase: BenchCase): Promise<Prepared>;
}

/** Milliseconds and passes before the first measurement: V8 replaces a kernel's first code after 5 to 8 ms. */
const WARM_UP = { milliseconds: 100, passes: 2 };
/** After this many milliseconds the caches are warm, however few passes it was. */
const WARM = 1000;

/**
 * Measures single passes: warmed up at first, and with one more pass before each later order, since others have
 * had the caches in between.
 */
export function timed(pass: () => Promise<void>): Prepared["measure"] {
  let isFirst = true;
  let lastPass = 0;
  return async ({ milliseconds, passes }) => {
    if (isFirst) await warmUp(pass);
    else if (lastPass < WARM) await pass();
    isFirst = false;
    const bench = new Bench({ time: milliseconds, iterations: passes, warmup: false, retainSamples: true });
    bench.add("pass", pass, { async: true });
    const [task] = await bench.run();
    const result = task?.result;
    if (result?.state === "errored") throw result.error;
    if (result?.state !== "completed") throw new Error(`the measurement ended as ${result?.state}`);
    lastPass = result.latency.p50;
    return (result.latency.samples ?? []).map((time) => time / 1000);
  };
}

async function warmUp(pass: () => Promise<void>): Promise<void> {
  const start = performance.now();
  for (let passes = 1; ; passes++) {
    await pass();
    const elapsed = performance.now() - start;
    if (elapsed > WARM || (elapsed > WARM_UP.milliseconds && passes >= WARM_UP.passes)) return;
  }
}

/** `count` values that are spread evenly over the whole. */
export function pick(values: ArrayLike<number>, count = 8): number[] {
  return Array.from(
    { length: Math.min(count, values.length) },
    (_, i) => values[Math.floor((i * values.length) / count)] as number,
  );
}

/** Answers orders until stdin ends. `start` loads what the contender is made of. */
export async function serve(start: () => Promise<ServerOptions>): Promise<void> {
  const say = (message: unknown) => process.stdout.write(`${JSON.stringify(message)}\n`);
  // Nobody is there any more to answer to.
  process.stdout.on("error", () => process.exit());
  // What libraries print must not stand between the answers.
  console.log = console.info = console.debug = console.error;
  let options: ServerOptions;
  try {
    options = await start();
  } catch (error) {
    say({ unavailable: messageOf(error), usage: error instanceof RangeError });
    return;
  }
  const { description, variant, prepare } = options;
  say({ ready: { description, variant } });
  let current: { key: string; prepared: Prepared } | undefined;
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line) as Order;
    const key = JSON.stringify(order.case);
    try {
      let sample: readonly number[] | undefined;
      if (current?.key !== key) {
        current?.prepared.dispose();
        current = undefined;
        current = { key, prepared: await prepare(order.case) };
        sample = Array.from(await current.prepared.sample());
      }
      const times = await current.prepared.measure(order);
      say({ times, ...(sample && { sample }) } satisfies Answer);
    } catch (error) {
      say({ error: messageOf(error) });
    }
  }
  current?.prepared.dispose();
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const missing = /Cannot find package '([^']+)'/.exec(error.message);
  return missing ? `${missing[1]} is not installed` : error.message.replace(/\s*\n\s*/g, " ");
}
