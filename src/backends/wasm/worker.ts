// The program of a worker thread: instantiates the kernels on the shared memory and takes part in jobs.

import { CONTROL, jobViews, kernelCalls, runChunks, STOP, waitWhile } from "./job.js";

/** What a worker is told when it starts. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Which word of the control block is its own, and where it may scratch. */
  readonly index: number;
  readonly scratch: number;
}

function work({ module, memory, index, scratch }: WorkerStart): void {
  const instance = new WebAssembly.Instance(module, { env: { memory } });
  (instance.exports.scratch as WebAssembly.Global).value = scratch;
  const kernels = kernelCalls(instance);
  const { control, args } = jobViews(memory);
  const own = CONTROL.workers + index;
  const list: number[] = [];
  let job = 0;
  // Unless the engine was disposed of in the meantime.
  if (Atomics.load(control, own) !== STOP) Atomics.store(control, own, job);
  for (;;) {
    waitWhile(control, own, job);
    job = Atomics.load(control, own);
    if (job === STOP) return;
    const count = control[CONTROL.args] as number;
    list.length = 0;
    for (let i = 0; i < count; i++) list.push(args[i] as number);
    try {
      runChunks(control, (kernels[control[CONTROL.kernel] as number] as (typeof kernels)[0]).call, list);
    } catch {
      Atomics.store(control, CONTROL.failed, 1);
    }
    if (Atomics.sub(control, CONTROL.running, 1) === 1) Atomics.notify(control, CONTROL.running);
  }
}

async function start(): Promise<void> {
  if (typeof process !== "undefined" && process.versions?.node) {
    const { workerData } = await import("node:worker_threads");
    work(workerData as WorkerStart);
  } else {
    globalThis.onmessage = ({ data }: MessageEvent<WorkerStart>) => work(data);
  }
}

void start();
