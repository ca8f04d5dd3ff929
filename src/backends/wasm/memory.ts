import { align, type MemoryReport } from "../../backend.js";
import { BackendError } from "../../errors.js";
import type { Block } from "../../kernel.js";

const PAGE = 65536;
/** The address space of wasm32. */
const MAX_PAGES = 65536;
/**
 * Kernels read whole vectors past the last column (and store none of it), so the last block must not end where
 * memory does.
 */
const SLACK = PAGE;

/** A block of linear memory. */
export interface WasmBlock extends Block {
  readonly offset: number;
}

/** Hands out blocks of one linear memory: first fit over a list of free ranges, sorted and merged. */
export class WasmHeap {
  #free: { offset: number; byteLength: number }[] = [];
  #end: number;
  #used = 0;

  /** @param base where the heap begins, after the scratch areas */
  constructor(
    readonly memory: WebAssembly.Memory,
    base: number,
  ) {
    this.#end = align(base);
  }

  allocate(byteLength: number): WasmBlock {
    const size = align(Math.max(byteLength, 1));
    this.#used += size;
    const index = this.#free.findIndex((range) => range.byteLength >= size);
    const range = this.#free[index];
    if (!range) return { offset: this.#extend(size), byteLength: size };
    const block = { offset: range.offset, byteLength: size };
    if (range.byteLength === size) this.#free.splice(index, 1);
    else this.#free[index] = { offset: range.offset + size, byteLength: range.byteLength - size };
    return block;
  }

  /** Takes room behind the last block and grows the memory where that is needed. */
  #extend(size: number): number {
    const last = this.#free.at(-1);
    const offset = last && last.offset + last.byteLength === this.#end ? last.offset : this.#end;
    const pages = Math.ceil((offset + size + SLACK) / PAGE);
    const have = this.memory.buffer.byteLength / PAGE;
    if (pages > have) {
      try {
        if (pages > MAX_PAGES) throw new RangeError("4 GiB is all that wasm32 can address");
        this.memory.grow(pages - have);
      } catch (cause) {
        this.#used -= size;
        throw new BackendError(`out of memory: ${size} bytes on top of ${have * PAGE} could not be had`, {
          cause,
        });
      }
    }
    if (offset !== this.#end) this.#free.pop();
    this.#end = offset + size;
    return offset;
  }

  free(block: WasmBlock): void {
    const index = this.#free.findIndex((range) => range.offset > block.offset);
    const at = index < 0 ? this.#free.length : index;
    const before = this.#free[at - 1];
    const after = this.#free[at];
    this.#used -= block.byteLength;
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
    return { used: this.#used, reserved: this.memory.buffer.byteLength };
  }
}
