import type { Backend, MemoryReport, MemoryUse } from "../../backend.js";
import { BackendError } from "../../errors.js";
import type { Kernel, KernelArgs, Region } from "../../kernel.js";
import { JOB_BYTES } from "./job.js";
import { loadBuild, loadModule } from "./load.js";
import { type WasmBlock, WasmHeap } from "./memory.js";
import { chooseBuild, type WasmBuild } from "./module.js";
import { hardwareThreads, kernelFailure, sharedMemory, Threads } from "./threads.js";
import { isTile, TILES, type Tile, tileGlobals } from "./tiles.js";

/** The tile that is right wherever there is no fused multiply-add, which `deterministic` does without. */
const DETERMINISTIC_TILE: Tile = "4x8";
/** The address space of wasm32, in pages. */
const MAX_PAGES = 65536;
/**
 * Operations that are worth a thread, a microsecond or two: a call of fewer than two shares stays on the calling one.
 * Sharing costs 3 µs (a product of 48 × 48 matrices takes 6 µs alone and 7 on two threads, one of 64 × 64 12 and 9),
 * but what says nothing of its operations mostly takes longer than is guessed for it.
 */
const SHARE_FLOPS = 50_000;
/** Operations an element, where a kernel does not say: about what an exponential takes. */
const FLOPS_PER_ELEMENT = 4;

type Call = (...args: number[]) => void;

/** How a kernel is called: its export, and the names of what it takes in order. */
interface Plan {
  readonly call: Call;
  readonly operands: readonly string[];
  readonly numbers: readonly string[];
}

/** How to make a wasm backend. */
export interface WasmOptions {
  /** The build; by default the best that this runtime validates. */
  readonly wasm?: "auto" | WasmBuild;
  /** Pins the baseline build: the same bits on every machine. */
  readonly deterministic?: boolean;
  /** Threads that share the work, the caller's included; by default as many as the machine runs at once. */
  readonly threads?: number;
  /**
   * Let V8 pair 128-bit operations into 256-bit ones: Node 22 and later on x64. The kernels are then compiled at once,
   * which takes 20 ms, and checked on known inputs; without effect elsewhere, or where a result differs.
   */
  readonly revectorize?: boolean;
  /**
   * The register tile of products, rows by columns; by default the one that was measured to be the fastest, which is
   * kept for the next time where there are files. It changes no result.
   */
  readonly tile?: "auto" | Tile;
  /**
   * Compiled kernels, where compiling bytes is forbidden (Workers of some hosts): `./kernels.wasm`. It imports
   * an unshared memory, so it runs on one thread.
   */
  readonly module?: WebAssembly.Module;
}

/** Runs the AssemblyScript kernels in one linear memory, on the calling thread and on workers. */
export class WasmBackend implements Backend {
  readonly kind = "wasm";
  readonly maxBlockBytes = 2 ** 32 - 2 ** 20;
  readonly #heap: WasmHeap;
  readonly #calls: Readonly<Record<string, WebAssembly.ExportValue>>;
  /** The call's arguments, kept so that a dispatch allocates no array. */
  readonly #args: number[] = [];
  readonly #plans = new Map<Kernel, Plan>();
  /** The memory's bytes, until it grows. */
  #bytes = new Uint8Array();
  #isDisposed = false;

  private constructor(
    readonly build: WasmBuild | "module",
    private readonly memoryObject: WebAssembly.Memory,
    instance: WebAssembly.Instance,
    heapBase: number,
    readonly variant: "portable" | "revectorized",
    /** The register tile that products run on. */
    readonly tile: Tile,
    private readonly threads: Threads | undefined,
  ) {
    this.#calls = instance.exports;
    this.#heap = new WasmHeap(memoryObject, heapBase);
  }

  static async create(options: WasmOptions = {}): Promise<WasmBackend> {
    const build = chooseBuild(options.wasm ?? "auto", options.deterministic ?? false);
    const wanted = options.module ? 1 : (options.threads ?? (await hardwareThreads()));
    const limits = { initial: 64, maximum: MAX_PAGES };
    const shared = wanted > 1 ? sharedMemory(limits) : undefined;
    const count = shared ? wanted : 1;
    const memory = shared ?? new WebAssembly.Memory(limits);
    const tile = options.tile ?? (options.deterministic ? DETERMINISTIC_TILE : "auto");
    if (tile !== "auto" && !isTile(tile)) {
      throw new RangeError(`tile must be 'auto' or one of ${TILES.join(", ")}, got '${tile}'`);
    }
    const { revectorize = false } = options;
    const kernels = options.module
      ? await loadModule(options.module, memory, tile)
      : await loadBuild(build, memory, { shared: shared !== undefined, revectorize, tile });
    const { module, instance, scratchBytes, variant } = kernels;
    const threads = shared ? new Threads(shared, instance, count) : undefined;
    const scratchOf = (thread: number) => JOB_BYTES + thread * scratchBytes;
    await threads?.start(module, (index) => ({
      scratch: scratchOf(index + 1),
      ...tileGlobals(kernels.tile),
    }));
    const heapBase = scratchOf(count);
    const name = options.module ? "module" : build;
    return new WasmBackend(name, memory, instance, heapBase, variant, kernels.tile, threads);
  }

  get description(): string {
    const count = this.threads?.count ?? 1;
    const variant = this.variant === "revectorized" ? ", revectorized" : "";
    return `wasm (${this.build} SIMD${variant}, tile ${this.tile}, ${count} ${count === 1 ? "thread" : "threads"})`;
  }

  /** Threads that take part, the caller's included; workers join in as they come up. */
  get threadCount(): number {
    return 1 + (this.threads?.ready ?? 0);
  }

  allocate(byteLength: number, use?: MemoryUse): WasmBlock {
    this.#expectAlive();
    return this.#heap.allocate(byteLength, use);
  }

  extend(block: WasmBlock, byteLength: number): boolean {
    this.#expectAlive();
    return this.#heap.extend(block, byteLength);
  }

  /** Does nothing after `dispose`, so that what lives in the backend may be disposed of after it. */
  free(block: WasmBlock): void {
    this.#heap.free(block);
  }

  write(region: Region, data: ArrayBufferView): void {
    this.#expectAlive();
    if (data.byteLength > region.byteLength) {
      throw new RangeError(`write: ${data.byteLength} bytes into a region of ${region.byteLength}`);
    }
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.#memory().set(bytes, address(region));
  }

  view(region: Region): Uint8Array {
    this.#expectAlive();
    const start = address(region);
    return this.#memory().subarray(start, start + region.byteLength);
  }

  async read(region: Region, into = new Uint8Array(region.byteLength)): Promise<ArrayBuffer> {
    // A slice of shared memory would be shared too.
    into.set(this.view(region));
    return into.buffer;
  }

  copy(to: Region, from: Region): void {
    this.#expectAlive();
    const start = address(from);
    this.#memory().copyWithin(address(to), start, start + from.byteLength);
  }

  #memory(): Uint8Array {
    const { buffer } = this.memoryObject;
    if (this.#bytes.buffer !== buffer) this.#bytes = new Uint8Array(buffer);
    return this.#bytes;
  }

  dispatch<K extends Kernel<string, string, string, string>>(kernel: K, args: KernelArgs<K>): void {
    this.#expectAlive();
    const { call, operands, numbers } = this.#plans.get(kernel) ?? this.#plan(kernel);
    const values = args as unknown as Readonly<Record<string, Region & number>>;
    const list = this.#args;
    let i = 0;
    for (const name of operands) {
      const region = values[name];
      list[i++] = region ? address(region) : 0;
    }
    for (const name of numbers) list[i++] = values[name] as number;
    list.length = i;
    const range = kernel.range(values);
    if (this.threads && range > 1) {
      const flops = kernel.flops ? kernel.flops(values) : elements(values, operands) * FLOPS_PER_ELEMENT;
      if (flops >= 2 * SHARE_FLOPS) {
        this.threads.run(kernel.name, list, range, Math.ceil(flops / SHARE_FLOPS));
        return;
      }
    }
    list.push(0, range);
    try {
      call(...list);
    } catch (cause) {
      throw kernelFailure(kernel.name, cause);
    }
  }

  /** What a kernel's first dispatch finds out for the others: decoding a token takes a hundred. */
  #plan(kernel: Kernel): Plan {
    const call = this.#calls[kernel.name];
    if (typeof call !== "function") throw new BackendError(`wasm: no kernel is named '${kernel.name}'`);
    const reads = kernel.reads.map((name) => (name.endsWith("?") ? name.slice(0, -1) : name));
    const plan = {
      call: call as Call,
      operands: [...kernel.writes, ...reads],
      numbers: [...kernel.dims, ...kernel.scalars],
    };
    this.#plans.set(kernel, plan);
    return plan;
  }

  async synchronize(): Promise<void> {
    this.#expectAlive();
  }

  memory(): MemoryReport {
    return this.#heap.report();
  }

  /** Ends the workers. Linear memory goes with the last reference to it. Again, it does nothing. */
  dispose(): void {
    this.#isDisposed = true;
    this.threads?.dispose();
  }

  #expectAlive(): void {
    if (this.#isDisposed) throw new BackendError("wasm: the backend was disposed of");
  }
}

/** How many f32 the operands of a call hold. */
function elements(values: Readonly<Record<string, Region>>, operands: readonly string[]): number {
  let bytes = 0;
  for (const name of operands) bytes += values[name]?.byteLength ?? 0;
  return bytes / 4;
}

function address(region: Region): number {
  return (region.block as WasmBlock).offset + region.byteOffset;
}
