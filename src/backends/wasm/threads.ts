import { BackendError } from "../../errors.js";
import {
  CONTROL,
  callUp,
  fail,
  failureOf,
  JOB_BYTES,
  type JobViews,
  jobViews,
  join,
  type KernelCall,
  kernelCalls,
  MAX_WORKERS,
  runChunks,
  STATE,
  stop,
  wordOf,
} from "./job.js";
import { hasNodeModules } from "./runtime.js";
import { platformSpawn, type WorkerHandle } from "./spawn.js";

/**
 * Shares a thread from which a job is cut into two chunks a thread instead of one, so that a thread that is held up
 * leaves some of its work to the others; a smaller job is over before that pays (training the model of width 64 on two
 * threads ran at 33,000 tokens/s with 20 here and at 40,000 with 300). The results do not depend on it: a kernel
 * computes each unit of its range in the same way wherever the range is cut.
 */
const FINE_SHARES = 300;

/** A linear memory, and the calling thread's kernels on it. */
export interface KernelMemory {
  readonly memory: WebAssembly.Memory;
  readonly instance: WebAssembly.Instance;
}

/**
 * Worker threads that share the kernels' memories. They join in as they come up; until then the caller is alone. They
 * wait without end for the next job, so a memory that is opened later needs others.
 */
export class Threads {
  /** What the threads tell each other through. */
  readonly job = new SharedArrayBuffer(JOB_BYTES);
  readonly #views: JobViews = jobViews(this.job);
  /** By memory and name. */
  readonly #kernels: readonly ReadonlyMap<string, { readonly index: number; readonly call: KernelCall }>[];
  readonly #workers: WorkerHandle[] = [];

  /**
   * @param memories all of them shared
   * @param count threads, the caller's included
   * @param hasLost whether it was reported already that some do not start
   */
  constructor(
    readonly memories: readonly KernelMemory[],
    readonly count: number,
    public hasLost = false,
  ) {
    this.#kernels = memories.map(
      ({ instance }) =>
        new Map(kernelCalls(instance).map(({ name, call }, index) => [name, { index, call }])),
    );
  }

  /**
   * Starts the workers, without waiting for them. What does not start is reported once and done without.
   * @param globals the exported globals of each worker's instances
   */
  async start(
    module: WebAssembly.Module,
    globals: (index: number) => Readonly<Record<string, number>>,
  ): Promise<void> {
    try {
      const spawn = await platformSpawn();
      for (let index = 0; index < this.count - 1; index++) {
        const memories = this.memories.map(({ memory }) => memory);
        const start = { module, memories, job: this.job, index, globals: globals(index) };
        this.#workers.push(spawn(start, (problem) => this.#lose(index, problem)));
      }
    } catch (problem) {
      this.#warn(problem);
    }
  }

  /** A worker has ended by itself. None is in the middle of a job then: `run` does not leave before. */
  #lose(index: number, problem: unknown): void {
    const before = Atomics.exchange(this.#views.control, wordOf(index), STATE.absent);
    if (before === STATE.stop) stop(this.#views.control, wordOf(index));
    else this.#warn(problem);
  }

  #warn(problem: unknown): void {
    if (this.hasLost) return;
    this.hasLost = true;
    const reason = problem instanceof Error ? problem.message : String(problem);
    console.warn(`oriflamme: a worker thread is missing, and the others do its work: ${reason}`);
  }

  /**
   * Runs a kernel over its whole range, on the calling thread and on workers that are up.
   * @param list the kernel's arguments before the range; reused
   * @param shares how many threads the job is worth, the caller's included
   * @param memory the place of the memory that it runs on
   * @throws BackendError where a call traps, on whatever thread; the threads are ready for the next job then
   */
  run(name: string, list: number[], range: number, shares: number, memory = 0): void {
    const kernel = this.#kernels[memory]?.get(name);
    if (!kernel) throw new BackendError(`wasm: no kernel is named '${name}'`);
    const { control, args } = this.#views;
    const team = Math.min(shares, this.count, range);
    const chunks = Math.min(range, shares < FINE_SHARES * team ? team : 2 * team);
    control[CONTROL.kernel] = kernel.index;
    control[CONTROL.chunks] = chunks;
    control[CONTROL.range] = range;
    control[CONTROL.args] = list.length;
    control[CONTROL.memory] = memory;
    for (let i = 0; i < list.length; i++) args[i] = list[i] as number;
    Atomics.store(control, CONTROL.next, 0);
    Atomics.store(control, CONTROL.failed, 0);
    for (let i = 0; i < team - 1; i++) callUp(control, wordOf(i));
    let cause: unknown;
    try {
      runChunks(control, kernel.call, list);
    } catch (error) {
      cause = error;
      fail(this.#views, error);
    }
    for (let i = 0; i < team - 1; i++) join(control, wordOf(i));
    const message = failureOf(this.#views);
    if (message === undefined) return;
    throw kernelFailure(name, cause ?? new WebAssembly.RuntimeError(message));
  }

  /** Workers that are up. */
  get ready(): number {
    const { control } = this.#views;
    let ready = 0;
    for (let i = 0; i < this.count - 1; i++) {
      const state = Atomics.load(control, wordOf(i));
      if (state !== STATE.absent && state !== STATE.stop) ready++;
    }
    return ready;
  }

  /** Ends the workers, those too that are still coming up. */
  dispose(): void {
    for (let i = 0; i < this.count - 1; i++) stop(this.#views.control, wordOf(i));
    for (const worker of this.#workers.splice(0)) worker.terminate();
  }
}

/** The error of a kernel whose call threw: a trap, such as an operand outside the memory. */
export function kernelFailure(name: string, cause: unknown): BackendError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new BackendError(`wasm: kernel '${name}' failed: ${reason}`, { cause });
}

/**
 * A memory that threads can share, undefined where there is none to be had: SharedArrayBuffer is missing (a page has
 * it only where it is cross-origin isolated), this thread may not wait (a page's own; put the engine into a
 * Worker), there are no workers to share with, or the system does not reserve the address space.
 */
export function sharedMemory(descriptor: WebAssembly.MemoryDescriptor): WebAssembly.Memory | undefined {
  if (typeof SharedArrayBuffer === "undefined") return undefined;
  if (typeof Worker === "undefined" && !hasNodeModules()) return undefined;
  try {
    // Returns at once, as the word is not 1, or throws where waiting is forbidden.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1);
    return new WebAssembly.Memory({ ...descriptor, shared: true });
  } catch {
    return undefined;
  }
}

/** Threads that this machine runs at once. */
export async function hardwareThreads(): Promise<number> {
  const { hardwareConcurrency } = globalThis.navigator ?? {};
  // Node before 21 has no navigator.
  const count = hardwareConcurrency ?? (await import("node:os")).availableParallelism();
  return Math.min(MAX_WORKERS + 1, count);
}
