import { type Backend, MemoryCount, type MemoryReport, type MemoryUse, sumReports } from "../../backend.js";
import { BackendError } from "../../errors.js";
import type { Kernel, KernelArgs, Region } from "../../kernel.js";
import { setGlobals } from "./job.js";
import { type Kernels, loadBuild, loadModule } from "./load.js";
import { LOWEST, MAX_PAGES, PAGE, type WasmBlock, WasmHeap } from "./memory.js";
import { chooseBuild, type WasmBuild } from "./module.js";
import { hardwareThreads, type KernelMemory, kernelFailure, sharedMemory, Threads } from "./threads.js";
import { isTile, TILES, type Tile, tileGlobals } from "./tiles.js";

/** The tile that is right wherever there is no fused multiply-add, which `deterministic` does without. */
const DETERMINISTIC_TILE: Tile = "4x8";
/** Pages of a fresh memory: what threads scratch in, and a little. */
const INITIAL_PAGES = 64;
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
   * Bytes that one linear memory may grow to, at least 4 MiB; 4 GiB by default, all that wasm32 can address. Models
   * that need more are laid over several memories, whole layers each.
   */
  readonly memoryBytes?: number;
  /**
   * Compiled kernels, where compiling bytes is forbidden (Workers of some hosts): `./kernels.wasm`. It imports
   * an unshared memory, so it runs on one thread.
   */
  readonly module?: WebAssembly.Module;
}

/** Kernels without a memory. */
type Compiled = Omit<Kernels, "instance">;

/** What the backends on several memories have in common; after `dispose` no memory is left in it. */
interface Machine {
  readonly build: WasmBuild | "module";
  readonly kernels: Compiled;
  /** Threads that share the work, the caller's included. */
  readonly count: number;
  readonly limits: WebAssembly.MemoryDescriptor;
  /** Every backend, by the place of its memory. */
  readonly backends: WasmBackend[];
  threads: Threads | undefined;
}

/** What goes with `dispose`. */
interface Live extends KernelMemory {
  readonly heap: WasmHeap;
  /** The memory's bytes, until it grows. */
  bytes: Uint8Array;
}

/** Runs the AssemblyScript kernels in one linear memory, on the calling thread and on workers. */
export class WasmBackend implements Backend {
  readonly kind = "wasm";
  readonly maxBlockBytes: number;
  readonly #machine: Machine;
  /** That of its memory among the machine's. */
  readonly #place: number;
  /** The call's arguments, kept so that a dispatch allocates no array. */
  readonly #args: number[] = [];
  readonly #plans = new Map<Kernel, Plan>();
  #live: Live | undefined;

  private constructor(machine: Machine, place: number, { memory, instance }: KernelMemory) {
    const { count, kernels, limits } = machine;
    this.#machine = machine;
    this.#place = place;
    const heap = new WasmHeap(memory, scratchOf(kernels, count), limits.maximum);
    this.maxBlockBytes = heap.capacity;
    this.#live = { memory, instance, heap, bytes: new Uint8Array() };
  }

  static async create(options: WasmOptions = {}): Promise<WasmBackend> {
    const build = chooseBuild(options.wasm ?? "auto", options.deterministic ?? false);
    const limits = memoryLimits(options.memoryBytes);
    const wanted = options.module ? 1 : (options.threads ?? (await hardwareThreads()));
    const shared = wanted > 1 ? sharedMemory(limits) : undefined;
    const count = shared ? wanted : 1;
    const memory = shared ?? new WebAssembly.Memory(limits);
    const tile = options.tile ?? (options.deterministic ? DETERMINISTIC_TILE : "auto");
    if (tile !== "auto" && !isTile(tile)) {
      throw new RangeError(`tile must be 'auto' or one of ${TILES.join(", ")}, got '${tile}'`);
    }
    const { revectorize = false } = options;
    const { instance, ...kernels } = options.module
      ? await loadModule(options.module, memory, tile)
      : await loadBuild(build, memory, { shared: shared !== undefined, revectorize, tile });
    const machine: Machine = {
      build: options.module ? "module" : build,
      ...{ kernels, count, limits, backends: [], threads: undefined },
    };
    const backend = new WasmBackend(machine, 0, { memory, instance });
    machine.backends.push(backend);
    if (shared) await WasmBackend.#startThreads(machine);
    return backend;
  }

  get build(): WasmBuild | "module" {
    return this.#machine.build;
  }

  get variant(): Kernels["variant"] {
    return this.#machine.kernels.variant;
  }

  /** The register tile that products run on. */
  get tile(): Tile {
    return this.#machine.kernels.tile;
  }

  get room(): number {
    return this.maxBlockBytes - this.#report().used;
  }

  get description(): string {
    const { count } = this.#machine;
    const variant = this.variant === "revectorized" ? ", revectorized" : "";
    return `wasm (${this.build} SIMD${variant}, tile ${this.tile}, ${count} ${count === 1 ? "thread" : "threads"})`;
  }

  /** Threads that take part, the caller's included; workers join in as they come up. */
  get threadCount(): number {
    return 1 + (this.#machine.threads?.ready ?? 0);
  }

  openMemories(count: number): readonly WasmBackend[] {
    this.#expectAlive();
    const machine = this.#machine;
    const { backends, kernels, limits } = machine;
    const opened: WasmBackend[] = [];
    for (let place = backends.length; place < count; place++) {
      const memory = openMemory({ ...limits, shared: machine.threads !== undefined });
      const instance = new WebAssembly.Instance(kernels.module, { env: { memory } });
      setGlobals(instance, { scratch: LOWEST, ...tileGlobals(kernels.tile) });
      opened.push(new WasmBackend(machine, place, { memory, instance }));
    }
    backends.push(...opened);
    if (machine.threads && opened.length > 0) void WasmBackend.#startThreads(machine);
    return backends.slice(0, count);
  }

  allocate(byteLength: number, use?: MemoryUse): WasmBlock {
    return this.#expectAlive().heap.allocate(byteLength, use);
  }

  extend(block: WasmBlock, byteLength: number): boolean {
    return this.#expectAlive().heap.extend(block, byteLength);
  }

  /** Does nothing after `dispose`, so that what lives in the backend may be disposed of after it. */
  free(block: WasmBlock): void {
    this.#live?.heap.free(block);
  }

  write(region: Region, data: ArrayBufferView): void {
    const memory = this.#memory();
    if (data.byteLength > region.byteLength) {
      throw new RangeError(`write: ${data.byteLength} bytes into a region of ${region.byteLength}`);
    }
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    memory.set(bytes, address(region));
  }

  view(region: Region): Uint8Array {
    const start = address(region);
    return this.#memory().subarray(start, start + region.byteLength);
  }

  async read(region: Region, into = new Uint8Array(region.byteLength)): Promise<ArrayBuffer> {
    // A slice of shared memory would be shared too.
    into.set(this.view(region));
    return into.buffer;
  }

  copy(to: Region, from: Region): void {
    const start = address(from);
    this.#memory().copyWithin(address(to), start, start + from.byteLength);
  }

  #memory(): Uint8Array {
    const live = this.#expectAlive();
    const { buffer } = live.memory;
    if (live.bytes.buffer !== buffer) live.bytes = new Uint8Array(buffer);
    return live.bytes;
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
    const { threads } = this.#machine;
    if (threads && range > 1) {
      const flops = kernel.flops ? kernel.flops(values) : elements(values, operands) * FLOPS_PER_ELEMENT;
      if (flops >= 2 * SHARE_FLOPS) {
        threads.run(kernel.name, list, range, Math.ceil(flops / SHARE_FLOPS), this.#place);
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
    const call = this.#expectAlive().instance.exports[kernel.name];
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

  /** Of the first memory's backend that of all of them. After `dispose` nothing is held. */
  memory(): MemoryReport {
    if (this.#place > 0) return this.#report();
    return sumReports(this.#machine.backends.map((backend) => backend.#report()));
  }

  #report(): MemoryReport {
    return this.#live?.heap.report() ?? new MemoryCount().report(0, 0);
  }

  /** Ends the workers and lets the memories go, those of all backends on the same threads. Again, it does nothing. */
  dispose(): void {
    this.#machine.threads?.dispose();
    this.#machine.threads = undefined;
    for (const backend of this.#machine.backends) {
      backend.#live = undefined;
      backend.#plans.clear();
    }
  }

  /** Starts workers on all memories, in place of those that do not know the last. */
  static async #startThreads(machine: Machine): Promise<void> {
    const { backends, count, kernels } = machine;
    machine.threads?.dispose();
    const memories = backends.map((backend) => backend.#expectAlive());
    machine.threads = new Threads(memories, count, machine.threads?.hasLost);
    await machine.threads.start(kernels.module, (index) => ({
      scratch: scratchOf(kernels, index + 1),
      ...tileGlobals(kernels.tile),
    }));
  }

  #expectAlive(): Live {
    if (!this.#live) throw new BackendError("wasm: the backend was disposed of");
    return this.#live;
  }
}

/** Where a thread scratches, the caller's being the first; behind the last thread's the heap begins. */
function scratchOf({ scratchBytes }: Compiled, thread: number): number {
  return LOWEST + thread * scratchBytes;
}

/** @throws RangeError for what is no number of bytes that wasm32 can address */
function memoryLimits(bytes = MAX_PAGES * PAGE): WebAssembly.MemoryDescriptor & { maximum: number } {
  const maximum = Math.floor(bytes / PAGE);
  if (!(maximum >= INITIAL_PAGES && maximum <= MAX_PAGES)) {
    const range = `from ${INITIAL_PAGES * PAGE} to ${MAX_PAGES * PAGE}`;
    throw new RangeError(`memoryBytes must be a number ${range}, got ${bytes}`);
  }
  return { initial: INITIAL_PAGES, maximum };
}

function openMemory(descriptor: WebAssembly.MemoryDescriptor): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory(descriptor);
  } catch (cause) {
    throw new BackendError("wasm: no further memory could be had", { cause });
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
