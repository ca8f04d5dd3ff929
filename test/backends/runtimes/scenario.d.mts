import type { WasmBackend } from "../../../src/backends/wasm/backend.js";
import type { BackendOptions } from "../../../src/index.js";

/** What the scenario computed, as digests of bits and losses, and the threads that the engine came to. */
export interface ScenarioResult {
  readonly product: string;
  /** The product in a second memory. */
  readonly elsewhere: string;
  readonly attention: readonly string[];
  readonly training: { readonly losses: readonly number[]; readonly bits: string };
  readonly threads: number;
  readonly threadsAfter: number;
}

export function compute(
  options: BackendOptions & { readonly keep?: boolean },
  expected: number,
  whileUp?: (backend: WasmBackend) => Promise<void>,
): Promise<ScenarioResult>;
