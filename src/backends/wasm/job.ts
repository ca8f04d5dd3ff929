/**
 * How the calling thread and its workers share a kernel call. The job lies at the bottom of the shared memory: a
 * few words of control, then the arguments. Every thread that takes part draws chunks from one counter until none
 * is left.
 */

/** Words of the control block. */
export const CONTROL = {
  /** The next chunk to draw. */
  next: 0,
  /** Workers that still run. */
  running: 1,
  /** The kernel's place in the sorted list of exports. */
  kernel: 2,
  chunks: 3,
  /** Extent of the kernel's range. */
  range: 4,
  /** Arguments before the range. */
  args: 5,
  /** Not 0: a worker's call has thrown. */
  failed: 6,
  /** One word a worker: NOT_READY, then the number of its last job, or STOP. */
  workers: 16,
} as const;

export const NOT_READY = -1;
export const STOP = -2;
export const MAX_WORKERS = 64;

/** Bytes: where the arguments begin, and how many there are at most. All are exact as float64. */
const ARGS_OFFSET = 512;
const MAX_ARGS = 60;

/** The bytes of a job. Address 0 means "none" to the kernels, and no block begins below this. */
export const JOB_BYTES = ARGS_OFFSET + MAX_ARGS * 8;

/**
 * Loads on a word before a thread goes to sleep: jobs follow one another within microseconds, and waking takes
 * longer than that (9 µs against 2.4 µs a fork and join, measured on two cores).
 */
const SPINS = 4000;

export type KernelCall = (...args: number[]) => void;

/** Views of the job's bytes in a memory. */
export interface JobViews {
  readonly control: Int32Array;
  readonly args: Float64Array;
}

export function jobViews(memory: WebAssembly.Memory): JobViews {
  return {
    control: new Int32Array(memory.buffer, 0, ARGS_OFFSET / 4),
    args: new Float64Array(memory.buffer, ARGS_OFFSET, MAX_ARGS),
  };
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

/** Waits until a word is no longer `value`: spins, then sleeps where the runtime allows it. */
export function waitWhile(control: Int32Array, word: number, value: number): void {
  for (let i = 0; i < SPINS; i++) if (Atomics.load(control, word) !== value) return;
  while (Atomics.load(control, word) === value) Atomics.wait(control, word, value);
}
