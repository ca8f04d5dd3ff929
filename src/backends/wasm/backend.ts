import type { Backend, MemoryReport, MemoryUse } from "../../backend.js";
import { BackendError } from "../../errors.js";
import type { Kernel, KernelArgs, Region } from "../../kernel.js";
import { type WasmBlock, WasmHeap } from "./memory.js";
import { buildBytes, chooseBuild, type WasmBuild } from "./module.js";
import { CHECK_BYTES, isUnchangedByTierUp, setRevectorize } from "./revectorize.js";
import { canShareMemory, hardwareThreads, Threads } from "./threads.js";

/** Bytes at the bottom of memory for the job that threads share; no block has address 0. */
const BASE = 1024;
const PAGE = 65536;
/** The address space of wasm32, in pages. */
const MAX_PAGES = 65536;
/** Calls of fewer operations stay on the calling thread: waking another takes as long. */
const PARALLEL_FLOPS = 100_000;
/** Operations an element, where a kernel does not say: about what an exponential takes. */
const FLOPS_PER_ELEMENT = 4;

/** A custom section without content: V8 keeps compiled code by the bytes, and these must not match. */
const EMPTY_SECTION = [0x00, 0x01, 0x00];

type Call = (...args: number[]) => void;

/** How to make a wasm backend. */
export interface WasmOptions {
  /** The build; by default the best that this runtime validates. */
  readonly wasm?: "auto" | WasmBuild;
  /** Pins the baseline build: the same bits on every machine. */
  readonly deterministic?: boolean;
  /** Threads that share the work, the caller's included; by default as many as the machine runs at once. */
  readonly threads?: number;
  /**
   * Let V8 pair 128-bit operations into 256-bit ones: Node 22 and later, for every module that the process compiles
   * from then on. Checked on known inputs first; without effect where V8 has not the flag or a result differs.
   */
  readonly revectorize?: boolean;
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

  private constructor(
    readonly build: WasmBuild | "module",
    private readonly memoryObject: WebAssembly.Memory,
    instance: WebAssembly.Instance,
    heapBase: number,
    readonly variant: "portable" | "revectorized",
    private readonly threads: Threads | undefined,
  ) {
    this.#calls = instance.exports;
    this.#heap = new WasmHeap(memoryObject, heapBase);
  }

  static async create(options: WasmOptions = {}): Promise<WasmBackend> {
    const build = chooseBuild(options.wasm ?? "auto", options.deterministic ?? false);
    const count = options.module || !canShareMemory() ? 1 : (options.threads ?? (await hardwareThreads()));
    const shared = count > 1;
    const memory = new WebAssembly.Memory({ initial: 64, maximum: MAX_PAGES, shared });
    const compile = async (trailer: readonly number[] = []) => {
      if (options.module) return options.module;
      const bytes = await buildBytes(build, shared);
      return WebAssembly.compile(trailer.length > 0 ? Uint8Array.of(...bytes, ...trailer) : bytes);
    };
    let isRevectorized = Boolean(options.revectorize && !options.module) && (await setRevectorize(true));
    let module = await compile();
    let instance = await WebAssembly.instantiate(module, { env: { memory } });
    const { scratch, SCRATCH_BYTES: scratchBytes } = instance.exports;
    if (!(scratch instanceof WebAssembly.Global) || !(scratchBytes instanceof WebAssembly.Global)) {
      throw new BackendError("wasm: the module is not this version's kernels.wasm (it exports no scratch)");
    }
    const scratchOf = (thread: number) => BASE + thread * scratchBytes.value;
    const heapBase = scratchOf(count);
    const missing = Math.ceil((heapBase + CHECK_BYTES) / PAGE) - memory.buffer.byteLength / PAGE;
    if (missing > 0) memory.grow(missing);
    scratch.value = BASE;
    if (isRevectorized && !isUnchangedByTierUp(instance, memory, heapBase)) {
      await setRevectorize(false);
      isRevectorized = false;
      module = await compile(EMPTY_SECTION);
      instance = await WebAssembly.instantiate(module, { env: { memory } });
      (instance.exports.scratch as WebAssembly.Global).value = BASE;
    }
    const threads = shared ? new Threads(memory, instance, count) : undefined;
    await threads?.start(module, memory, (index) => scratchOf(index + 1));
    const variant = isRevectorized ? "revectorized" : "portable";
    return new WasmBackend(options.module ? "module" : build, memory, instance, heapBase, variant, threads);
  }

  get description(): string {
    const count = this.threads?.count ?? 1;
    const variant = this.variant === "revectorized" ? ", revectorized" : "";
    return `wasm (${this.build} SIMD${variant}, ${count} ${count === 1 ? "thread" : "threads"})`;
  }

  /** Threads that take part, the caller's included; workers join in as they come up. */
  get threadCount(): number {
    return 1 + (this.threads?.ready ?? 0);
  }

  allocate(byteLength: number, use?: MemoryUse): WasmBlock {
    return this.#heap.allocate(byteLength, use);
  }

  extend(block: WasmBlock, byteLength: number): boolean {
    return this.#heap.extend(block, byteLength);
  }

  free(block: WasmBlock): void {
    this.#heap.free(block);
  }

  write(region: Region, data: ArrayBufferView): void {
    if (data.byteLength > region.byteLength) {
      throw new RangeError(`write: ${data.byteLength} bytes into a region of ${region.byteLength}`);
    }
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    new Uint8Array(this.memoryObject.buffer).set(bytes, address(region));
  }

  async read(region: Region, into = new Uint8Array(region.byteLength)): Promise<ArrayBuffer> {
    // A slice of shared memory would be shared too.
    into.set(new Uint8Array(this.memoryObject.buffer, address(region), region.byteLength));
    return into.buffer;
  }

  copy(to: Region, from: Region): void {
    const start = address(from);
    new Uint8Array(this.memoryObject.buffer).copyWithin(address(to), start, start + from.byteLength);
  }

  dispatch<K extends Kernel<string, string, string, string>>(kernel: K, args: KernelArgs<K>): void {
    const call = this.#calls[kernel.name];
    if (typeof call !== "function") throw new BackendError(`wasm: no kernel is named '${kernel.name}'`);
    const values = args as unknown as Readonly<Record<string, Region & number>>;
    const list = this.#args;
    let i = 0;
    let bytes = 0;
    for (const name of kernel.writes) {
      const region = values[name] as Region;
      list[i++] = address(region);
      bytes += region.byteLength;
    }
    for (const name of kernel.reads) {
      const region = values[name] ?? (name.endsWith("?") ? values[name.slice(0, -1)] : undefined);
      list[i++] = region ? address(region) : 0;
      bytes += region?.byteLength ?? 0;
    }
    for (const name of kernel.dims) list[i++] = values[name] as number;
    for (const name of kernel.scalars) list[i++] = values[name] as number;
    list.length = i;
    const range = kernel.range(values);
    if (this.threads && range > 1) {
      const flops = kernel.flops ? kernel.flops(values) : (bytes / 4) * FLOPS_PER_ELEMENT;
      if (flops >= PARALLEL_FLOPS) {
        this.threads.run(kernel.name, list, range);
        return;
      }
    }
    list.push(0, range);
    (call as Call)(...list);
  }

  async synchronize(): Promise<void> {}

  memory(): MemoryReport {
    return this.#heap.report();
  }

  /** Ends the workers. Linear memory goes with the last reference to it. */
  dispose(): void {
    this.threads?.dispose();
  }
}

function address(region: Region): number {
  return (region.block as WasmBlock).offset + region.byteOffset;
}
