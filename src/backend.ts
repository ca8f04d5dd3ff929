import type { Block, Kernel, KernelArgs, Region } from "./kernel.js";

/** Bytes that every region's offset is a multiple of: WebGPU's binding alignment, and four cache lines. */
export const ALIGNMENT = 256;

/** Rounds a byte count up to the alignment. */
export function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** What a block is for. */
export type MemoryUse = "weights" | "gradients" | "moments" | "activations" | "kvCache" | "tables";

/** What a backend holds, in bytes. */
export interface MemoryReport {
  /** Handed out to blocks that live. */
  readonly used: number;
  /** `used`, by what the blocks are for. An arena counts as a whole, whatever of it is in use. */
  readonly uses: Readonly<Record<MemoryUse, number>>;
  /** What the backend works with itself: scratch of threads, buffers on the way to and from a device. */
  readonly scratch: number;
  /** Held from the system: used, scratch, and the rest free. */
  readonly reserved: number;
  readonly free: number;
}

/** Counts a backend's blocks by their use. */
export class MemoryCount {
  readonly #uses: Record<MemoryUse, number> = {
    weights: 0,
    gradients: 0,
    moments: 0,
    activations: 0,
    kvCache: 0,
    tables: 0,
  };

  /** Of all uses together. */
  get used(): number {
    return Object.values(this.#uses).reduce((sum, bytes) => sum + bytes, 0);
  }

  /** @param bytes negative where they are given back */
  add(use: MemoryUse, bytes: number): void {
    this.#uses[use] += bytes;
  }

  report(scratch: number, reserved: number): MemoryReport {
    const { used } = this;
    return { used, uses: { ...this.#uses }, scratch, reserved, free: reserved - used - scratch };
  }
}

/** What several backends hold together. */
export function sumReports(reports: readonly MemoryReport[]): MemoryReport {
  const sum = (of: (report: MemoryReport) => number) => reports.reduce((total, one) => total + of(one), 0);
  const count = new MemoryCount();
  for (const { uses } of reports)
    for (const [use, bytes] of Object.entries(uses)) count.add(use as MemoryUse, bytes);
  return count.report(
    sum(({ scratch }) => scratch),
    sum(({ reserved }) => reserved),
  );
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
  /** Bytes that its own memory can still hand out, where that is known. */
  readonly room?: number;

  /** Reserves memory. Its content is undefined. `use` is what `memory` counts it as, activations by default. */
  allocate(byteLength: number, use?: MemoryUse): Block;
  /**
   * Makes a block longer where it lies, its content kept. False where something else follows it, or the backend
   * can't at all: then only a block of its own gives more room.
   */
  extend(block: Block, byteLength: number): boolean;
  free(block: Block): void;

  /**
   * The bytes of a region themselves, where the host can reach them. Memory that is not shared takes its views with it
   * when it grows: what waits for something must not hold one.
   */
  view?(region: Region): Uint8Array;
  /** Copies `data` to the start of the region. */
  write(region: Region, data: ArrayBufferView): void;
  /**
   * A copy of the region, after all work dispatched so far.
   * @param into where it goes, of the region's size, instead of into a buffer of its own
   */
  read(region: Region, into?: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer>;
  /** Copies all bytes of `from` to the start of `to`; the regions must not overlap. */
  copy(to: Region, from: Region): void;

  dispatch<K extends Kernel<string, string, string, string>>(kernel: K, args: KernelArgs<K>): void;
  /** Resolves when all work dispatched so far is done; rejects with the device's error if some of it failed. */
  synchronize(): Promise<void>;

  /**
   * Backends with a memory of their own, this one's first, that run on the same threads and end with it: for what is
   * too much for one address space. A call's operands must all lie in one memory. Those that were opened before are
   * given again, and `memory` counts them all. Not there where one backend reaches all the memory there is.
   * @throws BackendError where the system gives no more
   */
  openMemories?(count: number): readonly Backend[];

  memory(): MemoryReport;
  dispose(): void;
}
