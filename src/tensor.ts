import { ALIGNMENT, align, type Backend, type MemoryUse } from "./backend.js";
import { bytesOf, type DType, decode, encode, isStorage } from "./dtype.js";
import type { Block, Region } from "./kernel.js";
import { Pool, type PoolMark } from "./pool.js";

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

/** A point in an arena to return to: that of each of its pools. */
export type ArenaMark = readonly PoolMark[];

/**
 * Where activations live: a pool in the memory of each backend that a pass comes by, of which the first is where it
 * begins. Nothing is freed singly: `release` goes back to a mark, `reset` to the start.
 */
export class Arena {
  readonly #pools: Pool[];

  constructor(
    readonly backend: Backend,
    readonly blockBytes = 1 << 20,
  ) {
    this.#pools = [new Pool(backend, blockBytes)];
  }

  /** An uninitialised tensor, in another memory than the first where one is given. */
  tensor(shape: readonly number[], dtype: DType = "f32", backend = this.backend): Tensor {
    const { block, byteOffset } = this.#poolIn(backend).take(bytesOf(dtype, shape));
    return new Tensor(backend, block, byteOffset, shape, dtype);
  }

  #poolIn(backend: Backend): Pool {
    for (const pool of this.#pools) if (pool.backend === backend) return pool;
    const pool = new Pool(backend, this.blockBytes);
    this.#pools.push(pool);
    return pool;
  }

  /** Bytes in front of the bump pointers. */
  get used(): number {
    return this.#sum((pool) => pool.used);
  }

  /** The most that was ever in use at once in each memory, in bytes. */
  get peak(): number {
    return this.#sum((pool) => pool.peak);
  }

  #sum(bytesOf: (pool: Pool) => number): number {
    return this.#pools.reduce((sum, pool) => sum + bytesOf(pool), 0);
  }

  mark(): ArenaMark {
    return this.#pools.map((pool) => pool.mark());
  }

  release(mark: ArenaMark): void {
    this.#pools.forEach((pool, i) => void pool.release(mark[i]));
  }

  /** Back to the start. Tensors handed out so far must not be used again. */
  reset(): void {
    for (const pool of this.#pools) pool.reset();
  }

  /** Gives all memory back. The arena can be used again. */
  dispose(): void {
    for (const pool of this.#pools) pool.dispose();
  }
}

/** Bytes that are set to 0 with one write. */
const ZEROS = 1 << 18;

/** What parameters are for, and how and where they are stored. */
export interface ParametersOptions {
  /** For the report of memory. */
  readonly use?: MemoryUse;
  /** The element type of each; f32 where it is not named. */
  readonly dtypes?: ReadonlyMap<string, DType>;
  /** Whether every tensor is written next, so that only what lies between them must be set to 0. */
  readonly isFilled?: boolean;
  /** In whose memory the tensor of that name lies; by default all in one. */
  readonly backendOf?: (name: string) => Backend;
}

/** A tensor that has no memory yet. */
interface Placed {
  readonly name: string;
  readonly byteOffset: number;
}

/**
 * Named tensors in few blocks, one where they fit, so that an optimiser treats them all in as many dispatches where
 * all are f32. The padding between them is zero and stays zero under AdamW.
 */
export class Parameters {
  readonly #views = new Map<string, Tensor>();
  /** Each block as one vector of f32, in the order of their first tensors. */
  readonly blocks: readonly Tensor[];

  /**
   * @param dtypes types by name; f32 where there is none
   * @throws RangeError where a tensor's rows are not whole blocks of its type, BackendError where there is no room;
   * nothing is held then
   */
  constructor(
    readonly backend: Backend,
    readonly shapes: ReadonlyMap<string, readonly number[]>,
    options: ParametersOptions = {},
  ) {
    const { use = "weights", dtypes = new Map<string, DType>(), isFilled = false } = options;
    const blocks: Tensor[] = [];
    const views = new Map<string, Tensor>();
    this.blocks = blocks;
    try {
      for (const { owner, placed, bytes } of this.#layOut(options)) {
        const block = owner.allocate(Math.max(bytes, align(1)), use);
        blocks.push(new Tensor(owner, block, 0, [bytes / 4]));
        for (const { name, byteOffset } of placed) {
          views.set(name, new Tensor(owner, block, byteOffset, shapes.get(name) ?? [], dtypes.get(name)));
        }
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
    for (const name of shapes.keys()) this.#views.set(name, views.get(name) as Tensor);
    if (isFilled) this.#zeroPadding();
    else this.zero();
  }

  /** The blocks and what lies in each: one a backend, or several where one would be too large for it. */
  #layOut({ dtypes = new Map(), backendOf = () => this.backend }: ParametersOptions) {
    const layouts: { owner: Backend; placed: Placed[]; bytes: number }[] = [];
    for (const [name, shape] of this.shapes) {
      const owner = backendOf(name);
      const size = align(bytesOf(dtypes.get(name) ?? "f32", shape));
      let layout = layouts.findLast((one) => one.owner === owner);
      if (!layout || layout.bytes + size > owner.maxBlockBytes) {
        layout = { owner, placed: [], bytes: 0 };
        layouts.push(layout);
      }
      layout.placed.push({ name, byteOffset: layout.bytes });
      layout.bytes += size;
    }
    return layouts.length > 0 ? layouts : [{ owner: this.backend, placed: [], bytes: 0 }];
  }

  /** All of them as one vector of f32. @throws RangeError where they are in several blocks */
  get all(): Tensor {
    const [block, ...others] = this.blocks;
    if (!block || others.length > 0) throw new RangeError(`parameters in ${this.blocks.length} blocks`);
    return block;
  }

  /** Sets every value to 0, the padding included. */
  zero(): void {
    for (const block of this.blocks) zero(block, 0, block.byteLength);
  }

  #zeroPadding(): void {
    for (const tensor of this.#views.values()) {
      // Whole words, as backends write them; what is cut off belongs to the tensor.
      const end = Math.floor((tensor.byteOffset + tensor.byteLength) / 4) * 4;
      zero(tensor, end, align(end) - end);
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
    for (const { backend, block } of this.blocks) backend.free(block);
  }
}

/** Sets bytes of a block to 0, piece by piece: zeros for all of it would be as much again on the host. */
function zero({ backend, block }: Tensor, byteOffset: number, byteLength: number): void {
  const zeros = new Uint8Array(Math.min(byteLength, ZEROS));
  for (let done = 0; done < byteLength; done += ZEROS) {
    const length = Math.min(ZEROS, byteLength - done);
    backend.write({ block, byteOffset: byteOffset + done, byteLength: length }, zeros.subarray(0, length));
  }
}
