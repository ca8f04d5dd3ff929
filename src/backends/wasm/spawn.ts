import { hasNodeModules } from "./runtime.js";
import type { WorkerStart } from "./worker.js";

/** A worker thread of the platform. */
export interface WorkerHandle {
  /** Ends it, whatever it does. */
  terminate(): void;
}

/** Starts a worker thread. @param onEnd called where it ends although nobody ended it */
export type Spawn = (start: WorkerStart, onEnd: (problem: unknown) => void) => WorkerHandle;

/** How workers are started here: Node's threads (Deno and Bun have them too), or a page's. */
export async function platformSpawn(): Promise<Spawn> {
  if (hasNodeModules()) {
    const { spawnNode } = await import("./spawn-node.js");
    return spawnNode;
  }
  return spawnWeb;
}

const spawnWeb: Spawn = (start, onEnd) => {
  // Bundlers look for exactly this expression.
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  // The event of a script that was not found has no message.
  worker.onerror = ({ message }) => onEnd(new Error(message || "its script could not be loaded"));
  worker.onmessageerror = () => onEnd(new Error("it could not read what it was sent"));
  worker.postMessage(start);
  return worker;
};
