/**
 * How the calling thread and its workers share a kernel call. The job lies in shared memory of its own: what to run and
 * on which linear memory, its arguments, and a word for every worker. All threads that take part draw chunks of the
 * range from one counter until none is left.
 *
 * A worker is only waited for once it has begun: a call that it has not taken up by the time the caller has drawn
 * the last chunk is taken back. So a thread that is late, asleep or gone costs nothing and holds up nobody.
 */

/** Bytes of a cache line; words that different threads write lie on different ones. */
const LINE = 64;
/** Words of a line. */
const STRIDE = LINE / Int32Array.BYTES_PER_ELEMENT;

/** Words of the control block. The first line is written only between jobs. */
export const CONTROL = {
  /** The kernel's place in the sorted list of exports. */
  kernel: 0,
  chunks: 1,
  /** Extent of the kernel's range. */
  range: 2,
  /** Arguments before the range. */
  args: 3,
  /** The linear memory's place among those that the threads were started with. */
  memory: 4,
  /** The next chunk to draw. */
  next: STRIDE,
  /** 0, or 1 + the length of the message of the first call that threw. */
  failed: 2 * STRIDE,
} as const;

/** What a worker's word says. */
export const STATE = {
  /** It has not come up, or has ended. */
  absent: 0,
  /** It waits for a call, looking. */
  idle: 1,
  /** It waits for a call, and must be woken. */
  asleep: 2,
  /** There is a job, which it has not taken up. */
  called: 3,
  busy: 4,
  /** It is busy, and the caller must be woken after. */
  awaited: 5,
  /** It is to end. */
  stop: 6,
} as const;

export const MAX_WORKERS = 63;
const MAX_ARGS = 60;
/** UTF-16 units of a failure's message that are kept. */
const MAX_MESSAGE = 160;

/** Bytes: where the arguments (float64, exact for all that kernels take), the message and the workers' words begin. */
const ARGS_OFFSET = 3 * LINE;
const MESSAGE_OFFSET = ARGS_OFFSET + MAX_ARGS * Float64Array.BYTES_PER_ELEMENT;
const WORKERS_OFFSET = 1024;

/** The bytes of a job. */
export const JOB_BYTES = WORKERS_OFFSET + 64 * LINE;

/**
 * Looks at a word before a thread goes to sleep, some 0.4 ms. The jobs of a training step follow one another within
 * that, and waking takes 30 µs: steps of a model of width 64 on 256 tokens ran at 18,000 tokens/s where they ran at
 * 15,000 with 4,000 looks, on two cores. A longer wait gained nothing more.
 */
const SPINS = 30_000;

export type KernelCall = (...args: number[]) => void;

/** Views of a job's bytes. */
export interface JobViews {
  readonly control: Int32Array;
  readonly args: Float64Array;
  readonly message: Uint16Array;
}

/** @param job of `JOB_BYTES` bytes, 0 at first */
export function jobViews(job: SharedArrayBuffer): JobViews {
  return {
    control: new Int32Array(job),
    args: new Float64Array(job, ARGS_OFFSET, MAX_ARGS),
    message: new Uint16Array(job, MESSAGE_OFFSET, MAX_MESSAGE),
  };
}

/** Where a worker's word is, counted in words. */
export function wordOf(worker: number): number {
  return WORKERS_OFFSET / Int32Array.BYTES_PER_ELEMENT + worker * STRIDE;
}

/** The kernels of an instance, in an order that every thread agrees on. */
export function kernelCalls(
  instance: WebAssembly.Instance,
): { readonly name: string; readonly call: KernelCall }[] {
  return Object.entries(instance.exports)
    .filter((entry): entry is [string, KernelCall] => typeof entry[1] === "function")
    .map(([name, call]) => ({ name, call }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Sets exported globals of an instance. */
export function setGlobals(instance: WebAssembly.Instance, globals: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(globals)) {
    (instance.exports[name] as WebAssembly.Global).value = value;
  }
}

/** Draws chunks and runs the kernel on them until none is left. `list` holds the arguments and is reused. */
export function runChunks(control: Int32Array, call: KernelCall, list: number[]): void {
  const chunks = control[CONTROL.chunks] as number;
  const range = control[CONTROL.range] as number;
  const last = list.length;
  for (;;) {
    const chunk = Atomics.add(control, CONTROL.next, 1);
    if (chunk >= chunks) break;
    list[last] = Math.floor((range * chunk) / chunks);
    list[last + 1] = Math.floor((range * (chunk + 1)) / chunks);
    call(...list);
  }
  list.length = last;
}

/** Notes the first failure of a job for the caller, and leaves no chunk to draw. */
export function fail({ control, message }: JobViews, error: unknown): void {
  Atomics.store(control, CONTROL.next, control[CONTROL.chunks] as number);
  const text = (error instanceof Error ? error.message : String(error)).slice(0, MAX_MESSAGE);
  if (Atomics.compareExchange(control, CONTROL.failed, 0, 1 + text.length) !== 0) return;
  for (let i = 0; i < text.length; i++) message[i] = text.charCodeAt(i);
}

/** The message of the job's first failure, read once all threads have ended; undefined where there is none. */
export function failureOf({ control, message }: JobViews): string | undefined {
  const failed = Atomics.load(control, CONTROL.failed);
  return failed === 0 ? undefined : String.fromCharCode(...message.subarray(0, failed - 1));
}

/** The worker has come up, unless it was told to end in the meantime. */
export function report(control: Int32Array, word: number): void {
  Atomics.compareExchange(control, word, STATE.absent, STATE.idle);
}

/** The worker waits for a job and takes it up: looks, then sleeps. False where it is to end. */
export function takeUp(control: Int32Array, word: number): boolean {
  for (;;) {
    for (let i = 0; i < SPINS; i++) {
      const state = Atomics.load(control, word);
      if (state === STATE.stop) return false;
      if (state !== STATE.called) continue;
      if (Atomics.compareExchange(control, word, STATE.called, STATE.busy) === STATE.called) return true;
    }
    Atomics.compareExchange(control, word, STATE.idle, STATE.asleep);
    Atomics.wait(control, word, STATE.asleep);
  }
}

/** The worker has ended its part of a job. */
export function finish(control: Int32Array, word: number): void {
  if (Atomics.exchange(control, word, STATE.idle) === STATE.awaited) Atomics.notify(control, word);
}

/** The caller tells a worker that there is a job. */
export function callUp(control: Int32Array, word: number): void {
  if (Atomics.load(control, word) === STATE.absent) return;
  if (Atomics.exchange(control, word, STATE.called) === STATE.asleep) Atomics.notify(control, word);
}

/** The caller takes back a call that the worker has not taken up, or waits until the worker has ended its part. */
export function join(control: Int32Array, word: number): void {
  if (Atomics.compareExchange(control, word, STATE.called, STATE.idle) !== STATE.busy) return;
  for (let i = 0; i < SPINS; i++) if (Atomics.load(control, word) !== STATE.busy) return;
  if (Atomics.compareExchange(control, word, STATE.busy, STATE.awaited) !== STATE.busy) return;
  Atomics.wait(control, word, STATE.awaited);
}

/** The caller tells a worker to end. */
export function stop(control: Int32Array, word: number): void {
  Atomics.store(control, word, STATE.stop);
  Atomics.notify(control, word);
}
