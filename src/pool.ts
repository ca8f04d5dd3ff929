import { align, type Backend } from "./backend.js";
import type { Block } from "./kernel.js";

/** A point in a pool to return to. */
export interface PoolMark {
  readonly index: number;
  readonly offset: number;
  readonly wasted: number;
}

const START: PoolMark = { index: 0, offset: 0, wasted: 0 };

/** The part of a pool that may lie between its tensors before a reset joins its blocks. */
const MOST_WASTE = 1 / 64;

/**
 * A bump allocator over blocks of a backend. Nothing is freed singly: `release` goes back to a mark, `reset` to
 * the start. Its last block grows in place where the backend can do that; else it takes another, and what was left
 * of the one before is wasted. A reset replaces blocks that wasted room by one of what they held, so that a loop
 * which repeats its shapes stops allocating after its second turn.
 */
export class Pool {
  #blocks: Block[] = [];
  #index = 0;
  #offset = 0;
  #peak = 0;
  /** Bytes in front of the bump pointer that nothing has. */
  #wasted = 0;
  /** The most of them since the last reset. */
  #mostWasted = 0;

  constructor(
    readonly backend: Backend,
    readonly blockBytes: number,
  ) {}

  /** Room for that many bytes, its content undefined. */
  take(byteLength: number): { readonly block: Block; readonly byteOffset: number } {
    const bytes = align(byteLength);
    for (;;) {
      const block = this.#blocks[this.#index];
      if (block === undefined) {
        this.#blocks.push(this.backend.allocate(Math.max(bytes, this.blockBytes)));
      } else if (this.#offset + bytes <= block.byteLength) {
        const byteOffset = this.#offset;
        this.#offset += bytes;
        this.#peak = Math.max(this.#peak, this.used);
        return { block, byteOffset };
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

  mark(): PoolMark {
    return { index: this.#index, offset: this.#offset, wasted: this.#wasted };
  }

  /** @param mark the start where the pool is younger than it */
  release({ index, offset, wasted }: PoolMark = START): void {
    this.#index = index;
    this.#offset = offset;
    this.#wasted = wasted;
  }

  /** Back to the start. */
  reset(): void {
    const bytes = this.#blocks.reduce((sum, block) => sum + block.byteLength, 0);
    if (this.#mostWasted > MOST_WASTE * bytes && bytes <= this.backend.maxBlockBytes) {
      this.dispose();
      this.#blocks = [this.backend.allocate(bytes)];
    }
    this.#rewind();
  }

  #rewind(): void {
    this.release();
    this.#mostWasted = 0;
  }

  /** Gives all blocks back. The pool can be used again. */
  dispose(): void {
    for (const block of this.#blocks) this.backend.free(block);
    this.#blocks = [];
    this.#rewind();
  }
}
