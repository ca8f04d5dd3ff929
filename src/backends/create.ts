import type { Backend } from "../backend.js";
import { BackendError } from "../errors.js";
import type { WasmOptions } from "./wasm/backend.js";

/** Most threads that share the work. */
const MAX_THREADS = 64;

/** Which machine to run on, and how. */
export interface BackendOptions extends WasmOptions {
  /** `auto`: WebGPU where a page has an adapter, else wasm. Node's `auto` is wasm. */
  readonly kind?: "auto" | "wasm" | "webgpu";
}

/**
 * Makes a backend. Nothing is loaded before the call.
 * @throws RangeError for an unknown option, BackendError where the machine has not what was asked for
 */
export async function createBackend(options: BackendOptions = {}): Promise<Backend> {
  const kind = options.kind ?? "auto";
  const { threads } = options;
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS)) {
    throw new RangeError(`threads must be an integer from 1 to ${MAX_THREADS}, got ${threads}`);
  }
  if (kind === "wasm") return createWasm(options);
  if (kind === "webgpu") return createWebGPU(options);
  if (kind !== "auto") throw new RangeError(`backend must be 'auto', 'wasm' or 'webgpu', got '${kind}'`);
  const wantsWasm = options.wasm !== undefined || options.module !== undefined || options.deterministic;
  if (wantsWasm || typeof navigator === "undefined" || !("gpu" in navigator)) return createWasm(options);
  try {
    return await createWebGPU(options);
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    return createWasm(options);
  }
}

async function createWasm(options: BackendOptions): Promise<Backend> {
  const { WasmBackend } = await import("./wasm/backend.js");
  return WasmBackend.create(options);
}

async function createWebGPU(options: BackendOptions): Promise<Backend> {
  if (options.deterministic) {
    throw new RangeError("deterministic: a GPU rounds as its driver likes; use the wasm backend");
  }
  const { createWebGPUBackend } = await import("./webgpu/device.js");
  return createWebGPUBackend();
}
