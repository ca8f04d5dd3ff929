import { BackendError } from "../../errors.js";
import {
  CONTROL,
  type JobViews,
  jobViews,
  type KernelCall,
  kernelCalls,
  MAX_WORKERS,
  NOT_READY,
  runChunks,
  STOP,
} from "./job.js";
import type { WorkerStart } from "./worker.js";

/**
 * Chunks a thread, so that one that is held up leaves its share to the others. The results do not depend on it:
 * a kernel computes each unit of its range in the same way wherever the range is cut.
 */
const CHUNKS_PER_THREAD = 2;

/** How a platform's worker is started, and ended for good. */
interface WorkerHandle {
  terminate(): void;
}

/** Worker threads that share the kernels' memory. They join in as they come up; until then the caller is alone. */
export class Threads {
  readonly #views: JobViews;
  readonly #kernels: ReadonlyMap<string, { readonly index: number; readonly call: KernelCall }>;
  readonly #workers: WorkerHandle[] = [];
  #job = 0;
  /** What ended a worker that nobody ended. */
  #problem: unknown;

  /** @param instance the caller's own */
  constructor(
    memory: WebAssembly.Memory,
    instance: WebAssembly.Instance,
    readonly count: number,
  ) {
    this.#views = jobViews(memory);
    this.#views.control.fill(NOT_READY, CONTROL.workers, CONTROL.workers + MAX_WORKERS);
    this.#kernels = new Map(kernelCalls(instance).map(({ name, call }, index) => [name, { index, call }]));
  }

  /** Starts the workers, without waiting for them. @param scratch where each may scratch */
  async start(
    module: WebAssembly.Module,
    memory: WebAssembly.Memory,
    scratch: (index: number) => number,
  ): Promise<void> {
    for (let index = 0; index < this.count - 1; index++) {
      const data = { module, memory, index, scratch: scratch(index) };
      const onError = (problem: unknown) => {
        this.#problem ??= problem;
      };
      this.#workers.push(await spawn(data, onError));
    }
  }

  /** Runs a kernel over its whole range on all threads that are up. `list`: its arguments before the range. */
  run(name: string, list: number[], range: number): void {
    const kernel = this.#kernels.get(name);
    if (!kernel) throw new BackendError(`wasm: no kernel is named '${name}'`);
    if (this.#problem !== undefined) {
      throw new BackendError("wasm: a worker thread did not start", { cause: this.#problem });
    }
    const { control, args } = this.#views;
    const job = ++this.#job;
    control[CONTROL.kernel] = kernel.index;
    control[CONTROL.chunks] = Math.min(range, this.count * CHUNKS_PER_THREAD);
    control[CONTROL.range] = range;
    control[CONTROL.args] = list.length;
    for (let i = 0; i < list.length; i++) args[i] = list[i] as number;
    Atomics.store(control, CONTROL.next, 0);
    Atomics.store(control, CONTROL.failed, 0);
    this.#wake(control, job);
    try {
      runChunks(control, kernel.call, list);
    } finally {
      this.#join(control);
    }
    if (Atomics.load(control, CONTROL.failed) !== 0) {
      throw new BackendError(`wasm: kernel '${name}' failed in a worker thread`);
    }
  }

  #wake(control: Int32Array, job: number): void {
    const ready: number[] = [];
    for (let i = 0; i < this.#workers.length; i++) {
      if (Atomics.load(control, CONTROL.workers + i) !== NOT_READY) ready.push(CONTROL.workers + i);
    }
    Atomics.store(control, CONTROL.running, ready.length);
    for (const word of ready) {
      Atomics.store(control, word, job);
      Atomics.notify(control, word);
    }
  }

  /** Waits for the workers: they have drawn their last chunk, so it can't be long. */
  #join(control: Int32Array): void {
    let spins = 0;
    for (;;) {
      const running = Atomics.load(control, CONTROL.running);
      if (running === 0) return;
      if (++spins > 20000) Atomics.wait(control, CONTROL.running, running, 1);
    }
  }

  /** Workers that take part so far. */
  get ready(): number {
    const { control } = this.#views;
    return this.#workers.filter((_, i) => Atomics.load(control, CONTROL.workers + i) !== NOT_READY).length;
  }

  dispose(): void {
    const { control } = this.#views;
    for (let i = 0; i < MAX_WORKERS; i++) {
      Atomics.store(control, CONTROL.workers + i, STOP);
      Atomics.notify(control, CONTROL.workers + i);
    }
    for (const worker of this.#workers) worker.terminate();
  }
}

async function spawn(data: WorkerStart, onError: (problem: unknown) => void): Promise<WorkerHandle> {
  const url = new URL("./worker.js", import.meta.url);
  if (typeof process !== "undefined" && process.versions?.node) {
    const { Worker } = await import("node:worker_threads");
    const worker = new Worker(url, { workerData: data });
    worker.on("error", onError);
    // An idle worker must not keep the process alive.
    worker.unref();
    return { terminate: () => void worker.terminate() };
  }
  const worker = new Worker(url, { type: "module" });
  worker.onerror = onError;
  worker.postMessage(data);
  return worker;
}

/**
 * Whether threads can share memory here: SharedArrayBuffer exists (in a page only where it is cross-origin
 * isolated) and this thread may wait (a page's own thread may not; put the engine into a Worker).
 */
export function canShareMemory(): boolean {
  if (typeof SharedArrayBuffer === "undefined") return false;
  if ("document" in globalThis) return false;
  return !("crossOriginIsolated" in globalThis) || globalThis.crossOriginIsolated;
}

/** Threads that this machine runs at once. */
export async function hardwareThreads(): Promise<number> {
  const { hardwareConcurrency } = globalThis.navigator ?? {};
  // Node before 21 has no navigator.
  const count = hardwareConcurrency ?? (await import("node:os")).availableParallelism();
  return Math.min(MAX_WORKERS, count);
}
