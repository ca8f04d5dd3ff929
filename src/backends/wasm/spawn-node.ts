// Only what runs in Node (and Deno and Bun) loads this file; a page's bundler leaves it out.

import { Worker } from "node:worker_threads";
import type { Spawn } from "./spawn.js";

const PROGRAM = "./worker.js";

/** Starts a worker thread that does not keep the process alive. */
export const spawnNode: Spawn = (start, onEnd) => {
  // The process's own options (loaders, inspectors) are not for a thread that runs no code of the user's.
  const options = { name: "oriflamme", workerData: start, execArgv: [] };
  const worker = new Worker(new URL(PROGRAM, import.meta.url), options);
  worker.on("error", onEnd);
  worker.on("exit", (code) => onEnd(new Error(`it ended with exit code ${code}`)));
  worker.unref();
  return { terminate: () => void worker.terminate() };
};
