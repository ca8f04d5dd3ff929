// The program of a worker thread: instantiates the kernels on the shared memories and takes part in jobs.

import {
  CONTROL,
  fail,
  finish,
  jobViews,
  type KernelCall,
  kernelCalls,
  report,
  runChunks,
  setGlobals,
  takeUp,
  wordOf,
} from "./job.js";
import { hasNodeModules } from "./runtime.js";

/** What a worker is told when it starts. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  /** What jobs run on. */
  readonly memories: readonly WebAssembly.Memory[];
  /** Where jobs are told. */
  readonly job: SharedArrayBuffer;
  /** Its number, from 0. */
  readonly index: number;
  /** Exported globals of its instances, by name: where it may scratch, and what else the threads are to agree on. */
  readonly globals: Readonly<Record<string, number>>;
}

function work({ module, memories, job, index, globals }: WorkerStart): void {
  const kernels = memories.map((memory) => {
    const instance = new WebAssembly.Instance(module, { env: { memory } });
    setGlobals(instance, globals);
    return kernelCalls(instance).map(({ call }) => call);
  });
  const views = jobViews(job);
  const { control, args } = views;
  const word = wordOf(index);
  const list: number[] = [];
  report(control, word);
  while (takeUp(control, word)) {
    const count = control[CONTROL.args] as number;
    list.length = 0;
    for (let i = 0; i < count; i++) list.push(args[i] as number);
    const calls = kernels[control[CONTROL.memory] as number];
    try {
      runChunks(control, calls?.[control[CONTROL.kernel] as number] as KernelCall, list);
    } catch (error) {
      fail(views, error);
    }
    finish(control, word);
  }
}

async function start(): Promise<void> {
  if (hasNodeModules()) {
    const { workerData } = await import("node:worker_threads");
    work(workerData as WorkerStart);
  } else {
    globalThis.onmessage = ({ data }: MessageEvent<WorkerStart>) => work(data);
  }
}

void start();
