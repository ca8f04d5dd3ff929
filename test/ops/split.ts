import type { Backend, MemoryUse } from "../../src/backend.js";
import type { Block, Kernel, KernelArgs, Region } from "../../src/kernel.js";

type AnyKernel = Kernel<string, string, string, string>;

/** Bounds that cut [0, extent) into pieces as uneven as threads will ever get them. */
export function unevenBounds(extent: number): number[] {
  const bounds = new Set([0, 1, 3, Math.floor(extent / 3) + 1, Math.floor((2 * extent) / 3) + 2, extent - 1]);
  return [...bounds].filter((bound) => bound >= 0 && bound < extent).sort((a, b) => a - b);
}

/** Hands dispatches on, and may watch or change them. */
export class BackendWrapper implements Backend {
  constructor(protected readonly inner: Backend) {}

  get kind(): "wasm" | "webgpu" {
    return this.inner.kind;
  }

  get description(): string {
    return this.inner.description;
  }

  get variant(): Backend["variant"] {
    return this.inner.variant;
  }

  get maxBlockBytes(): number {
    return this.inner.maxBlockBytes;
  }

  allocate(byteLength: number, use?: MemoryUse): Block {
    return this.inner.allocate(byteLength, use);
  }

  extend(block: Block, byteLength: number): boolean {
    return this.inner.extend(block, byteLength);
  }

  free(block: Block): void {
    this.inner.free(block);
  }

  write(region: Region, data: ArrayBufferView): void {
    this.inner.write(region, data);
  }

  read(region: Region, into?: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
    return this.inner.read(region, into);
  }

  copy(to: Region, from: Region): void {
    this.inner.copy(to, from);
  }

  dispatch<K extends AnyKernel>(kernel: K, args: KernelArgs<K>): void {
    this.inner.dispatch(kernel, args);
  }

  synchronize(): Promise<void> {
    return this.inner.synchronize();
  }

  memory() {
    return this.inner.memory();
  }

  dispose(): void {
    this.inner.dispose();
  }
}

/** Notes the names of the kernels that it hands on. */
export class RecordingBackend extends BackendWrapper {
  readonly dispatched = new Set<string>();

  override dispatch<K extends AnyKernel>(kernel: K, args: KernelArgs<K>): void {
    this.dispatched.add(kernel.name);
    super.dispatch(kernel, args);
  }
}

/**
 * Runs every wasm kernel piece by piece, the last piece first, as threads would. The piece's `begin` and `end`
 * are passed as further scalars, in front of the range that the backend appends; JavaScript drops arguments
 * beyond those that an export has.
 */
export class SplitBackend extends BackendWrapper {
  override dispatch<K extends AnyKernel>(kernel: K, args: KernelArgs<K>): void {
    const extent = kernel.range(args as unknown as Record<string, number>);
    const scalars = [...kernel.scalars, "begin", "end"];
    let end = extent;
    for (const begin of unevenBounds(extent).reverse()) {
      const piece = { ...kernel, scalars, range: () => 1 } as AnyKernel;
      super.dispatch(piece, { ...(args as object), begin, end } as never);
      end = begin;
    }
  }
}
