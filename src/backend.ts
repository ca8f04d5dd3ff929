import type { Block, Kernel, KernelArgs, Region } from "./kernel.js";

/** Bytes that every region's offset is a multiple of: WebGPU's binding alignment, and four cache lines. */
export const ALIGNMENT = 256;

/** Rounds a byte count up to the alignment. */
export function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** What a backend holds, in bytes. */
export interface MemoryReport {
  /** Handed out to blocks that live. */
  readonly used: number;
  /** Held from the system, free blocks included. */
  readonly reserved: number;
}

/**
 * A machine that runs kernels: allocate, write, dispatch, read. Dispatches run in the order of the calls; only
 * `read` and `synchronize` wait for them.
 */
export interface Backend {
  readonly kind: "wasm" | "webgpu";
  /** For people: build and threads, or the adapter. */
  readonly description: string;
  /** Whether the runtime was told to rewrite the kernels' vector operations; see `WasmOptions.revectorize`. */
  readonly variant: "portable" | "revectorized";
  /** Largest block that `allocate` can return, in bytes. */
  readonly maxBlockBytes: number;

  /** Reserves memory. Its content is undefined. */
  allocate(byteLength: number): Block;
  free(block: Block): void;

  /** Copies `data` to the start of the region. */
  write(region: Region, data: ArrayBufferView): void;
  /** A copy of the region, after all work dispatched so far. */
  read(region: Region): Promise<ArrayBuffer>;
  /** Copies all bytes of `from` to the start of `to`; the regions must not overlap. */
  copy(to: Region, from: Region): void;

  dispatch<K extends Kernel<string, string, string, string>>(kernel: K, args: KernelArgs<K>): void;
  /** Resolves when all work dispatched so far is done; rejects with the device's error if some of it failed. */
  synchronize(): Promise<void>;

  memory(): MemoryReport;
  dispose(): void;
}
