import {
  ALIGNMENT,
  align,
  type Backend,
  MemoryCount,
  type MemoryReport,
  type MemoryUse,
} from "../../backend.js";
import { BackendError } from "../../errors.js";
import type { Kernel, KernelArgs, Region } from "../../kernel.js";
import { COPY_DST, COPY_SRC, GPUBlock, MAP_MODE_READ, ParameterArena, STORAGE, Staging } from "./buffers.js";
import { Pipelines } from "./pipelines.js";

type AnyKernel = Kernel<string, string, string, string>;

/** Dispatches that are submitted together: enough to hide a submit, few enough that the device starts early. */
const BATCH = 128;
/** Bind groups kept; a training step of a deep model repeats a few thousand. */
const BIND_GROUPS = 8192;
/** Operands of a kernel at most: WebGPU's default limit. */
const OPERANDS = 8;

/** What a device is called and who else it belongs to. */
export interface DeviceContext {
  /** For people. */
  readonly description: string;
  /** Whether `dispose` destroys the device. */
  readonly owned: boolean;
  /** The instance to hold as long as the device is in use: see `NodeAdapter`. */
  readonly gpu?: GPU | undefined;
  /** WGSL by kernel name. */
  readonly sources: Readonly<Record<string, string>>;
}

/**
 * Runs the WGSL kernels on a WebGPU device. Dispatches and copies are recorded, many in a compute pass, and
 * submitted in batches; `write`, `read` and `synchronize` submit what must come before them. What the device
 * reports (a shader that does not compile, an invalid call, no memory, its loss) rejects the next `read` or
 * `synchronize` with a BackendError.
 */
export class WebGPUBackend implements Backend {
  readonly kind = "webgpu";
  readonly variant = "portable";
  readonly description: string;
  readonly maxBlockBytes: number;
  readonly #blocks = new Set<GPUBlock>();
  readonly #pipelines: Pipelines;
  readonly #staging: Staging;
  readonly #parameters: ParameterArena;
  /** Bound where an optional operand is null. */
  readonly #spare: GPUBlock;
  readonly #bindGroups = new Map<string, GPUBindGroup>();
  readonly #regions: Region[] = [];
  #scratch: GPUBlock[] = [];
  #nextId = 0;
  #count = new MemoryCount();
  #batch = 0;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #passPipeline: GPUComputePipeline | undefined;
  #failure: BackendError | undefined;
  #lost: BackendError | undefined;
  readonly #onUncaptured = ({ error }: GPUUncapturedErrorEvent) => {
    this.#fail(new BackendError(`webgpu: ${error.message}`));
  };

  /** @param device see `createWebGPUBackend`, which is the way to make one */
  constructor(
    readonly device: GPUDevice,
    private readonly context: DeviceContext,
  ) {
    this.description = context.description;
    this.maxBlockBytes = Math.min(device.limits.maxBufferSize, device.limits.maxStorageBufferBindingSize);
    this.#pipelines = new Pipelines(device, context.sources);
    this.#staging = new Staging(device);
    this.#parameters = new ParameterArena(device, BATCH);
    this.#spare = this.#newBlock(OPERANDS * ALIGNMENT);
    device.addEventListener("uncapturederror", this.#onUncaptured);
    device.lost.then(({ message }) => {
      this.#lost ??= new BackendError(`webgpu: the device was lost: ${message || "no reason given"}`);
    });
  }

  /** @throws BackendError where the size is over `maxBlockBytes` */
  allocate(byteLength: number, use: MemoryUse = "activations"): GPUBlock {
    this.#expectAlive();
    const size = align(Math.max(byteLength, 1));
    if (size > this.maxBlockBytes) {
      throw new BackendError(
        `webgpu: a block of ${byteLength} bytes; this device's largest is ${this.maxBlockBytes}`,
      );
    }
    const block = this.#newBlock(size, use);
    this.#blocks.add(block);
    this.#count.add(use, size);
    return block;
  }

  /** A buffer has the size that it was made with. */
  extend(_block: GPUBlock, _byteLength: number): boolean {
    return false;
  }

  free(block: GPUBlock): void {
    if (!this.#blocks.delete(block)) return;
    if (block.use !== "scratch") this.#count.add(block.use, -block.byteLength);
    this.#destroy(block);
  }

  /** Moves whole words: the last is filled up with zeros where `data` ends inside it. */
  write(region: Region, data: ArrayBufferView): void {
    this.#expectAlive();
    if (data.byteLength > region.byteLength) {
      throw new RangeError(`write: ${data.byteLength} bytes into a region of ${region.byteLength}`);
    }
    if (data.byteLength === 0) return;
    const block = region.block as GPUBlock;
    // The queue writes before what is submitted later, so commands that use the block go first.
    if (block.batch === this.#batch) this.#flush();
    let bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    if (bytes.length % 4 !== 0) {
      const padded = new Uint8Array(words(bytes.length));
      padded.set(bytes);
      bytes = padded;
    }
    this.device.queue.writeBuffer(block.buffer, region.byteOffset, bytes);
  }

  async read(region: Region, into = new Uint8Array(region.byteLength)): Promise<ArrayBuffer> {
    this.#expectAlive();
    if (region.byteLength === 0) return into.buffer;
    const size = words(region.byteLength);
    const staging = this.#staging.take(size);
    this.#commands().copyBufferToBuffer(
      (region.block as GPUBlock).buffer,
      region.byteOffset,
      staging,
      0,
      size,
    );
    this.#flush();
    try {
      await this.#settled(staging.mapAsync(MAP_MODE_READ, 0, size));
    } catch (error) {
      this.#staging.drop(staging);
      throw error;
    }
    into.set(new Uint8Array(staging.getMappedRange(0, size), 0, region.byteLength));
    staging.unmap();
    this.#staging.give(staging);
    return into.buffer;
  }

  copy(to: Region, from: Region): void {
    this.#expectAlive();
    if (from.byteLength === 0) return;
    const target = to.block as GPUBlock;
    const source = from.block as GPUBlock;
    const size = words(from.byteLength);
    if (target !== source) {
      this.#commands().copyBufferToBuffer(source.buffer, from.byteOffset, target.buffer, to.byteOffset, size);
    } else {
      // WebGPU copies only between two buffers.
      const scratch = this.#scratchBlock(0, size);
      const commands = this.#commands();
      commands.copyBufferToBuffer(source.buffer, from.byteOffset, scratch.buffer, 0, size);
      commands.copyBufferToBuffer(scratch.buffer, 0, target.buffer, to.byteOffset, size);
    }
    target.batch = this.#batch;
    source.batch = this.#batch;
  }

  /** @throws BackendError where two of the kernel's writes overlap, or no shader has its name */
  dispatch<K extends AnyKernel>(kernel: K, args: KernelArgs<K>): void {
    this.#expectAlive();
    const values = args as unknown as Readonly<Record<string, Region & number>>;
    const [x, y = 1, z = 1] = kernel.grid(values);
    if (x * y * z === 0) return;
    if (this.#parameters.full) this.#flush();
    const pipeline = this.#pipelines.get(kernel);
    const regions = this.#operands(kernel, values);
    const bindGroup = this.#bindGroup(regions);
    const offset = this.#parameters.push(values, kernel.dims, kernel.scalars);
    for (const region of regions) (region.block as GPUBlock).batch = this.#batch;

    this.#pass ??= this.#commands().beginComputePass();
    if (this.#passPipeline !== pipeline) {
      this.#pass.setPipeline(pipeline);
      this.#passPipeline = pipeline;
    }
    this.#pass.setBindGroup(0, bindGroup, [offset]);
    this.#pass.dispatchWorkgroups(x, y, z);
  }

  /**
   * Compiles kernels side by side, which is faster than one by one at their first dispatch.
   * @throws BackendError that names the file, the line and the message of a shader that does not compile
   */
  prepare(kernels: readonly AnyKernel[]): Promise<void> {
    this.#expectAlive();
    return this.#pipelines.prepare(kernels);
  }

  async synchronize(): Promise<void> {
    this.#expectAlive();
    this.#flush();
    await this.#settled(this.device.queue.onSubmittedWorkDone());
  }

  memory(): MemoryReport {
    const scratch = this.#scratch.reduce((sum, block) => sum + block.byteLength, 0);
    const own = this.#spare.byteLength + this.#parameters.buffer.size + this.#staging.bytes + scratch;
    return this.#count.report(own, this.#count.used + own);
  }

  dispose(): void {
    if (this.#lost?.message === DISPOSED) return;
    this.#lost = new BackendError(DISPOSED);
    this.device.removeEventListener("uncapturederror", this.#onUncaptured);
    this.#pass?.end();
    this.#pass = undefined;
    this.#encoder = undefined;
    this.#bindGroups.clear();
    for (const block of [...this.#blocks, ...this.#scratch, this.#spare]) block.buffer.destroy();
    this.#blocks.clear();
    this.#count = new MemoryCount();
    this.#scratch = [];
    this.#staging.dispose();
    this.#parameters.dispose();
    if (this.context.owned) this.device.destroy();
  }

  #newBlock(size: number, use: MemoryUse | "scratch" = "scratch"): GPUBlock {
    this.device.pushErrorScope("out-of-memory");
    const buffer = this.device.createBuffer({ size, usage: STORAGE | COPY_SRC | COPY_DST });
    this.device.popErrorScope().then(
      (error) =>
        error && this.#fail(new BackendError(`webgpu: no memory for ${size} bytes: ${error.message}`)),
      () => undefined,
    );
    return new GPUBlock(this.#nextId++, buffer, size, use);
  }

  /** Destroys a block's buffer once nothing that is recorded uses it. */
  #destroy(block: GPUBlock): void {
    if (block.batch === this.#batch) this.#flush();
    // Bind groups would keep the buffer's object alive.
    this.#bindGroups.clear();
    block.buffer.destroy();
  }

  /** A block for bytes on their way, at least that large; `index` tells several of one dispatch apart. */
  #scratchBlock(index: number, byteLength: number): GPUBlock {
    const old = this.#scratch[index];
    if (old && old.byteLength >= byteLength) return old;
    if (old) this.#destroy(old);
    const block = this.#newBlock(align(2 ** Math.ceil(Math.log2(byteLength))));
    this.#scratch[index] = block;
    return block;
  }

  /** The encoder, outside any pass. */
  #commands(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = undefined;
    this.#passPipeline = undefined;
    this.#encoder ??= this.device.createCommandEncoder();
    return this.#encoder;
  }

  #flush(): void {
    if (!this.#encoder) return;
    const commands = this.#commands().finish();
    this.#parameters.flush();
    this.device.queue.submit([commands]);
    this.#encoder = undefined;
    this.#batch++;
  }

  /**
   * What the kernel's operands bind, in order. A device refuses overlapping ones, since all are writable: what
   * is only read is then read from a copy.
   */
  #operands(kernel: AnyKernel, values: Readonly<Record<string, Region>>): readonly Region[] {
    const regions = this.#regions;
    regions.length = 0;
    let copies = 0;
    for (const name of kernel.writes) {
      const region = values[name] as Region;
      const other = regions.findIndex((earlier) => overlap(earlier, region));
      if (other >= 0) {
        throw new BackendError(`webgpu: ${kernel.name}: ${kernel.writes[other]} and ${name} overlap`);
      }
      regions.push(region);
    }
    for (const name of kernel.reads) {
      const region = values[name] ?? (name.endsWith("?") ? values[name.slice(0, -1)] : undefined);
      if (!region) {
        const byteOffset = regions.length * ALIGNMENT;
        regions.push({ block: this.#spare, byteOffset, byteLength: ALIGNMENT });
      } else if (regions.some((earlier) => overlap(earlier, region))) {
        regions.push(this.#copied(region, copies++));
      } else {
        regions.push(region);
      }
    }
    return regions;
  }

  #copied(region: Region, index: number): Region {
    const { byteLength } = region;
    const copy = { block: this.#scratchBlock(index, words(byteLength)), byteOffset: 0, byteLength };
    this.copy(copy, region);
    return copy;
  }

  #bindGroup(regions: readonly Region[]): GPUBindGroup {
    let key = "";
    for (const { block, byteOffset, byteLength } of regions) {
      key += `${(block as GPUBlock).id},${byteOffset},${byteLength};`;
    }
    let group = this.#bindGroups.get(key);
    if (!group) {
      if (this.#bindGroups.size >= BIND_GROUPS) this.#bindGroups.clear();
      const entries: GPUBindGroupEntry[] = regions.map(({ block, byteOffset, byteLength }, binding) => ({
        binding,
        resource: { buffer: (block as GPUBlock).buffer, offset: byteOffset, size: words(byteLength) },
      }));
      entries.push({ binding: regions.length, resource: this.#parameters.binding });
      group = this.device.createBindGroup({ layout: this.#pipelines.layout(regions.length), entries });
      this.#bindGroups.set(key, group);
    }
    return group;
  }

  /** The first failure is the cause of those that follow. */
  #fail(error: BackendError): void {
    this.#failure ??= error;
  }

  #expectAlive(): void {
    if (this.#lost) throw this.#lost;
  }

  /** Waits for the device, then throws what went wrong since the last time. */
  async #settled(work: Promise<unknown>): Promise<void> {
    let problem: unknown;
    try {
      await work;
    } catch (error) {
      problem = error;
      // The loss that made it fail is told a moment later.
      await Promise.race([this.device.lost, new Promise((resolve) => setTimeout(resolve, 100))]);
    }
    const shader = await this.#pipelines.settle();
    this.#expectAlive();
    // What the device says of a bad shader's dispatches only follows from it.
    const failure = shader ?? this.#failure;
    this.#failure = undefined;
    if (failure) throw failure;
    if (problem) throw new BackendError(`webgpu: ${problem instanceof Error ? problem.message : problem}`);
  }
}

const DISPOSED = "webgpu: the backend was disposed of";

/** Rounds bytes up to what WebGPU moves. */
function words(byteLength: number): number {
  return Math.ceil(byteLength / 4) * 4;
}

function overlap(a: Region, b: Region): boolean {
  return (
    a.block === b.block &&
    a.byteOffset < b.byteOffset + b.byteLength &&
    b.byteOffset < a.byteOffset + a.byteLength
  );
}
