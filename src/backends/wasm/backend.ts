import type { Backend, MemoryReport } from "../../backend.js";
import { BackendError } from "../../errors.js";
import type { Kernel, KernelArgs, Region } from "../../kernel.js";
import { type WasmBlock, WasmHeap } from "./memory.js";
import { buildBytes, chooseBuild, type WasmBuild } from "./module.js";

/** Bytes at the bottom of memory that nothing uses, so that address 0 can mean "none". */
const BASE = 1024;
const PAGE = 65536;

type Call = (...args: number[]) => void;

/** How to make a wasm backend. */
export interface WasmOptions {
  /** The build; by default the best that this runtime validates. */
  readonly wasm?: "auto" | WasmBuild;
  /** Pins the baseline build: the same bits on every machine. */
  readonly deterministic?: boolean;
  /** Compiled kernels, where compiling bytes is forbidden (Workers of some hosts): `./kernels.wasm`. */
  readonly module?: WebAssembly.Module;
}

/** Runs the AssemblyScript kernels in one linear memory on the calling thread. */
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
  ) {
    this.#calls = instance.exports;
    const scratch = instance.exports.scratch;
    const bytes = instance.exports.SCRATCH_BYTES;
    if (!(scratch instanceof WebAssembly.Global) || !(bytes instanceof WebAssembly.Global)) {
      throw new BackendError("wasm: the module is not this version's kernels.wasm (it exports no scratch)");
    }
    scratch.value = BASE;
    this.#heap = new WasmHeap(memoryObject, BASE + bytes.value);
  }

  static async create(options: WasmOptions = {}): Promise<WasmBackend> {
    const build = chooseBuild(options.wasm ?? "auto", options.deterministic ?? false);
    const memory = new WebAssembly.Memory({ initial: (1 << 22) / PAGE, maximum: 65536 });
    const module = options.module ?? (await WebAssembly.compile(await buildBytes(build)));
    const instance = await WebAssembly.instantiate(module, { env: { memory } });
    return new WasmBackend(options.module ? "module" : build, memory, instance);
  }

  get description(): string {
    return `wasm (${this.build} SIMD, 1 thread)`;
  }

  allocate(byteLength: number): WasmBlock {
    return this.#heap.allocate(byteLength);
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

  async read(region: Region): Promise<ArrayBuffer> {
    const start = address(region);
    return this.memoryObject.buffer.slice(start, start + region.byteLength) as ArrayBuffer;
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
    for (const name of kernel.writes) list[i++] = address(values[name] as Region);
    for (const name of kernel.reads) {
      const region = values[name] ?? (name.endsWith("?") ? values[name.slice(0, -1)] : undefined);
      list[i++] = region ? address(region) : 0;
    }
    for (const name of kernel.dims) list[i++] = values[name] as number;
    for (const name of kernel.scalars) list[i++] = values[name] as number;
    list[i++] = 0;
    list[i++] = kernel.range(values);
    list.length = i;
    (call as Call)(...list);
  }

  async synchronize(): Promise<void> {}

  memory(): MemoryReport {
    return this.#heap.report();
  }

  /** Linear memory goes with the last reference to it; nothing else is held. */
  dispose(): void {}
}

function address(region: Region): number {
  return (region.block as WasmBlock).offset + region.byteOffset;
}
