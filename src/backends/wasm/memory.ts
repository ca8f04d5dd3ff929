import { ALIGNMENT, align, MemoryCount, type MemoryReport, type MemoryUse } from "../../backend.js";
import { BackendError } from "../../errors.js";
import type { Block } from "../../kernel.js";

export const PAGE = 65536;
/** The address space of wasm32. */
export const MAX_PAGES = 65536;
/** Address 0 means "none" to the kernels, so nothing lies below this. */
export const LOWEST = ALIGNMENT;
/**
 * Kernels read whole vectors past the last column (and store none of it), so the last block must not end where
 * memory does.
 */
const SLACK = PAGE;

/** A block of linear memory. */
export interface WasmBlock extends Block {
  readonly offset: number;
  byteLength: number;
  readonly use: MemoryUse;
}

/** Hands out blocks of one linear memory: first fit over a list of free ranges, sorted and merged. */
export class WasmHeap {
  #free: { offset: number; byteLength: number }[] = [];
  #end: number;
  readonly #count = new MemoryCount();

  /** @param base where the heap begins, after the scratch areas */
  constructor(
    readonly memory: WebAssembly.Memory,
    readonly base: number,
    /** Pages that the memory may grow to. */
    readonly maximum = MAX_PAGES,
  ) {
    this.#end = align(base);
  }

  /** The most that can be handed out, in bytes. */
  get capacity(): number {
    return this.maximum * PAGE - SLACK - align(this.base);
  }

  allocate(byteLength: number, use: MemoryUse = "activations"): WasmBlock {
    const size = align(Math.max(byteLength, 1));
    const index = this.#free.findIndex((range) => range.byteLength >= size);
    const offset = this.#free[index]?.offset ?? this.#endOfUse();
    if (index >= 0) this.#cut(index, size);
    else this.#moveEnd(offset, size);
    this.#count.add(use, size);
    return { offset, byteLength: size, use };
  }

  /** Makes a block longer in place; false where another follows it. */
  extend(block: WasmBlock, byteLength: number): boolean {
    const extra = align(byteLength) - block.byteLength;
    if (extra <= 0) return true;
    const end = block.offset + block.byteLength;
    const index = this.#free.findIndex(({ offset }) => offset === end);
    if ((this.#free[index]?.byteLength ?? 0) >= extra) this.#cut(index, extra);
    else if (end === this.#endOfUse()) this.#moveEnd(end, extra);
    else return false;
    block.byteLength += extra;
    this.#count.add(block.use, extra);
    return true;
  }

  /** Takes the first bytes of a free range. */
  #cut(index: number, size: number): void {
    const range = this.#free[index];
    if (!range) return;
    if (range.byteLength === size) this.#free.splice(index, 1);
    else this.#free[index] = { offset: range.offset + size, byteLength: range.byteLength - size };
  }

  /** Where the last block that lives ends. */
  #endOfUse(): number {
    const last = this.#free.at(-1);
    return last && last.offset + last.byteLength === this.#end ? last.offset : this.#end;
  }

  /** Takes room from `offset`, behind the last block, on, and grows the memory where that is needed. */
  #moveEnd(offset: number, size: number): void {
    const pages = Math.ceil((offset + size + SLACK) / PAGE);
    const have = this.memory.buffer.byteLength / PAGE;
    if (pages > have) {
      try {
        if (pages > this.maximum) throw new RangeError(`the memory may grow to ${this.maximum * PAGE} bytes`);
        this.memory.grow(pages - have);
      } catch (cause) {
        throw new BackendError(`out of memory: ${size} bytes on top of ${have * PAGE} could not be had`, {
          cause,
        });
      }
    }
    if (offset !== this.#end) this.#free.pop();
    this.#end = offset + size;
  }

  free(block: WasmBlock): void {
    const index = this.#free.findIndex((range) => range.offset > block.offset);
    const at = index < 0 ? this.#free.length : index;
    const before = this.#free[at - 1];
    const after = this.#free[at];
    this.#count.add(block.use, -block.byteLength);
    const range = { offset: block.offset, byteLength: block.byteLength };
    const joinsAfter = after && range.offset + range.byteLength === after.offset;
    if (joinsAfter) range.byteLength += after.byteLength;
    if (before && before.offset + before.byteLength === range.offset) {
      before.byteLength += range.byteLength;
      if (joinsAfter) this.#free.splice(at, 1);
    } else {
      this.#free.splice(at, joinsAfter ? 1 : 0, range);
    }
  }

  report(): MemoryReport {
    return this.#count.report(this.base, this.memory.buffer.byteLength);
  }
}
