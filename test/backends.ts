import type { Backend } from "../src/backend.js";
import { createBackend } from "../src/backends/create.js";

/** A backend that suites run on. */
export interface BackendCase {
  readonly name: string;
  readonly create: () => Promise<Backend>;
  /** Factor on tolerances: a GPU's compiler may reorder and approximate. */
  readonly slack: number;
}

/** Every build and device: a suite that runs on them all names none. */
export const BACKENDS: readonly BackendCase[] = [
  {
    name: "wasm baseline",
    create: () => createBackend({ kind: "wasm", wasm: "baseline", threads: 1 }),
    slack: 1,
  },
  {
    name: "wasm relaxed",
    create: () => createBackend({ kind: "wasm", wasm: "relaxed", threads: 1 }),
    slack: 1,
  },
  { name: "wasm, 2 threads", create: () => createBackend({ kind: "wasm", threads: 2 }), slack: 1 },
  { name: "webgpu", create: () => createBackend({ kind: "webgpu" }), slack: 2 },
];
