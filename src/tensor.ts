import { ALIGNMENT, align, type Backend, type MemoryUse } from "./backend.js";
import { bytesOf, type DType, decode, encode, isStorage } from "./dtype.js";
import type { Block, Region } from "./kernel.js";

/** A shape for messages, as in `(2, 16, 64)`. */
export function formatShape(shape: readonly number[]): string {
  return `(${shape.join(", ")})`;
}

/** The number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/** A contiguous row-major view of backend memory. It owns nothing: its arena or `Parameters` does. */
export class Tensor implements Region {
  /** The gradient that the tape accumulates into; made on first use where it is not set. */
  grad: Tensor | undefined;

  constructor(
    readonly backend: Backend,
    readonly block: Block,
    readonly byteOffset: number,
    readonly shape: readonly number[],
    readonly dtype: DType = "f32",
    /** Whether the tape computes a gradient for it. */
    public requiresGrad = false,
  ) {}

  get size(): number {
    return sizeOf(this.shape);
  }

  get byteLength(): number {
    return bytesOf(this.dtype, this.shape);
  }

  /** The same memory under another shape of the same size. */
  reshape(shape: readonly number[]): Tensor {
    if (sizeOf(shape) !== this.size) {
      throw new RangeError(`reshape: ${formatShape(this.shape)} has not the size of ${formatShape(shape)}`);
    }
    return new Tensor(this.backend, this.block, this.byteOffset, shape, this.dtype);
  }

  /**
   * Rows `from` to `to` of the first dimension, in the same memory, their gradient in that of the whole.
   * @throws RangeError where there are no such rows, or they do not begin at a multiple of `ALIGNMENT` bytes
   */
  rows(from: number, to: number): Tensor {
    const [count = 0, ...rest] = this.shape;
    const byteOffset = this.byteOffset + from * sizeOf(rest) * 4;
    if (!(from >= 0 && from <= to && to <= count) || byteOffset % ALIGNMENT !== 0) {
      throw new RangeError(
        `rows: ${from} to ${to} of ${formatShape(this.shape)} are no rows, or not aligned`,
      );
    }
    const shape = [to - from, ...rest];
    const part = new Tensor(this.backend, this.block, byteOffset, shape, this.dtype, this.requiresGrad);
    part.grad = this.grad?.rows(from, to);
    return part;
  }

  /** Rows `first` to `first + rows` of any type, without a gradient: a part of the memory to write to or read from. */
  rowBlock(first: number, rows: number): Tensor {
    const [count = 1, ...rest] = this.shape;
    if (!(first >= 0 && rows >= 0 && first + rows <= count)) {
      throw new RangeError(`rowBlock: ${rows} rows from ${first} on are not in ${formatShape(this.shape)}`);
    }
    const byteOffset = this.byteOffset + bytesOf(this.dtype, [first, ...rest]);
    return new Tensor(this.backend, this.block, byteOffset, [rows, ...rest], this.dtype);
  }

  /** Fills the tensor with bytes as its type has them. Throws RangeError for another number of them. */
  writeBytes(bytes: Uint8Array): void {
    if (bytes.length !== this.byteLength) {
      throw new RangeError(`writeBytes: ${bytes.length} bytes for a tensor of ${this.byteLength}`);
    }
    this.backend.write(this, bytes);
  }

  /**
   * Fills the tensor from the host. `data` must have exactly its size; a storage format takes f32 and rounds it.
   * @throws RangeError for another size, or values that the storage format cannot hold
   */
  write(data: Float32Array | Uint32Array): void {
    if (data.length !== this.size) {
      throw new RangeError(`write: ${data.length} values for a tensor of shape ${formatShape(this.shape)}`);
    }
    if (isStorage(this.dtype) && !(data instanceof Float32Array)) {
      throw new TypeError(`write: ${this.dtype} is encoded from a Float32Array`);
    }
    this.backend.write(this, isStorage(this.dtype) ? encode(this.dtype, data as Float32Array) : data);
  }

  /**
   * A copy of the values on the host as f32, after all work dispatched so far; those of a storage format are decoded.
   * `backend.read` has the bytes as they are.
   * @param into where they go, of the tensor's size, instead of into an array of their own
   */
  async read(into?: Float32Array<ArrayBuffer>): Promise<Float32Array> {
    if (into && into.length !== this.size) {
      throw new RangeError(`read: ${into.length} values of a tensor of shape ${formatShape(this.shape)}`);
    }
    if (isStorage(this.dtype)) {
      const values = decode(this.dtype, new Uint8Array(await this.backend.read(this)));
      into?.set(values);
      return into ?? values;
    }
    if (!into) return new Float32Array(await this.backend.read(this));
    await this.backend.read(this, new Uint8Array(into.buffer, into.byteOffset, into.byteLength));
    return into;
  }

  /** The same for a tensor of u32. */
  async readIds(): Promise<Uint32Array> {
    return new Uint32Array(await this.backend.read(this));
  }

  /** One f32 by its place in the whole, without the others. */
  async at(index: number): Promise<number> {
    if (this.dtype !== "f32" || !(index >= 0 && index < this.size)) {
      throw new RangeError(
        `at: there is no f32 number ${index} in ${formatShape(this.shape)} of ${this.dtype}`,
      );
    }
    const { block, byteOffset } = this;
    const bytes = await this.backend.read({ block, byteOffset: byteOffset + 4 * index, byteLength: 4 });
    return new DataView(bytes).getFloat32(0, true);
  }
}

/** A point in an arena to return to. */
export interface ArenaMark {
  readonly index: number;
  readonly offset: number;
  readonly wasted: number;
}

/** The part of an arena that may lie between its tensors before a reset joins its blocks. */
const MOST_WASTE = 1 / 64;

/**
 * A bump allocator over blocks of a backend. Nothing is freed singly: `release` goes back to a mark, `reset` to
 * the start. Its last block grows in place where the backend can do that; else it takes another, and what was left
 * of the one before is wasted. A reset replaces blocks that wasted room by one of what they held, so that a loop
 * which repeats its shapes stops allocating after its second turn.
 */
export class Arena {
  #blocks: Block[] = [];
  #index = 0;
  #offset = 0;
  #peak = 0;
  /** Bytes in front of the bump pointer that no tensor has. */
  #wasted = 0;
  /** The most of them since the last reset. */
  #mostWasted = 0;

  constructor(
    readonly backend: Backend,
    readonly blockBytes = 1 << 20,
  ) {}

  /** An uninitialised tensor. */
  tensor(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const bytes = align(bytesOf(dtype, shape));
    for (;;) {
      const block = this.#blocks[this.#index];
      if (block === undefined) {
        this.#blocks.push(this.backend.allocate(Math.max(bytes, this.blockBytes)));
      } else if (this.#offset + bytes <= block.byteLength) {
        const tensor = new Tensor(this.backend, block, this.#offset, shape, dtype);
        this.#offset += bytes;
        this.#peak = Math.max(this.#peak, this.used);
        return tensor;
      } else if (this.#index + 1 < this.#blocks.length || !this.backend.extend(block, this.#offset + bytes)) {
        this.#wasted += block.byteLength - this.#offset;
        this.#mostWasted = Math.max(this.#mostWasted, this.#wasted);
        this.#index++;
        this.#offset = 0;
      }
    }
  }

  /** Bytes in front of the bump pointer. */
  get used(): number {
    let bytes = this.#offset;
    for (let i = 0; i < this.#index; i++) bytes += this.#blocks[i]?.byteLength ?? 0;
    return bytes;
  }

  /** The most that was ever in use at once, in bytes. */
  get peak(): number {
    return this.#peak;
  }

  mark(): ArenaMark {
    return { index: this.#index, offset: this.#offset, wasted: this.#wasted };
  }

  release(mark: ArenaMark): void {
    this.#index = mark.index;
    this.#offset = mark.offset;
    this.#wasted = mark.wasted;
  }

  /** Back to the start. Tensors handed out so far must not be used again. */
  reset(): void {
    const bytes = this.#blocks.reduce((sum, block) => sum + block.byteLength, 0);
    if (this.#mostWasted > MOST_WASTE * bytes && bytes <= this.backend.maxBlockBytes) {
      this.dispose();
      this.#blocks = [this.backend.allocate(bytes)];
    }
    this.#rewind();
  }

  #rewind(): void {
    this.#index = 0;
    this.#offset = 0;
    this.#wasted = 0;
    this.#mostWasted = 0;
  }

  /** Gives all blocks back. The arena can be used again. */
  dispose(): void {
    for (const block of this.#blocks) this.backend.free(block);
    this.#blocks = [];
    this.#rewind();
  }
}

/** Bytes that are set to 0 with one write. */
const ZEROS = 1 << 18;

/** What a block of parameters is for, and how it stores them. */
export interface ParametersOptions {
  /** For the report of memory. */
  readonly use?: MemoryUse;
  /** The element type of each; f32 where it is not named. */
  readonly dtypes?: ReadonlyMap<string, DType>;
  /** Whether every tensor is written next, so that only what lies between them must be set to 0. */
  readonly isFilled?: boolean;
}

/**
 * Named tensors in one block, so that an optimiser treats them all in one dispatch where all are f32. The padding
 * between them is zero and stays zero under AdamW.
 */
export class Parameters {
  readonly #views = new Map<string, Tensor>();
  readonly #block: Block;
  /** The whole block as one vector of f32. */
  readonly all: Tensor;

  /**
   * @param dtypes types by name; f32 where there is none
   * @throws RangeError where a tensor's rows are not whole blocks of its type
   */
  constructor(
    readonly backend: Backend,
    readonly shapes: ReadonlyMap<string, readonly number[]>,
    { use = "weights", dtypes = new Map(), isFilled = false }: ParametersOptions = {},
  ) {
    let bytes = 0;
    const offsets = new Map<string, number>();
    for (const [name, shape] of shapes) {
      offsets.set(name, bytes);
      bytes += align(bytesOf(dtypes.get(name) ?? "f32", shape));
    }
    this.#block = backend.allocate(Math.max(bytes, align(1)), use);
    for (const [name, shape] of shapes) {
      const offset = offsets.get(name) ?? 0;
      this.#views.set(name, new Tensor(backend, this.#block, offset, shape, dtypes.get(name)));
    }
    this.all = new Tensor(backend, this.#block, 0, [bytes / 4]);
    if (isFilled) this.#zeroPadding();
    else this.zero();
  }

  /** Sets every value to 0, the padding included. */
  zero(): void {
    this.#zero(0, this.all.byteLength);
  }

  #zeroPadding(): void {
    for (const { byteOffset, byteLength } of this.#views.values()) {
      // Whole words, as backends write them; what is cut off belongs to the tensor.
      const from = Math.floor((byteOffset + byteLength) / 4) * 4;
      this.#zero(from, align(from) - from);
    }
  }

  #zero(byteOffset: number, byteLength: number): void {
    // Piece by piece: zeros for all of it would be as much again on the host.
    const zeros = new Uint8Array(Math.min(byteLength, ZEROS));
    for (let done = 0; done < byteLength; done += ZEROS) {
      const length = Math.min(ZEROS, byteLength - done);
      const region = { block: this.#block, byteOffset: byteOffset + done, byteLength: length };
      this.backend.write(region, zeros.subarray(0, length));
    }
  }

  /** The tensor of that name, which must exist. */
  get(name: string): Tensor {
    const tensor = this.#views.get(name);
    if (!tensor) throw new RangeError(`no parameter is named '${name}'`);
    return tensor;
  }

  has(name: string): boolean {
    return this.#views.has(name);
  }

  entries(): IterableIterator<[string, Tensor]> {
    return this.#views.entries();
  }

  dispose(): void {
    this.backend.free(this.#block);
  }
}
