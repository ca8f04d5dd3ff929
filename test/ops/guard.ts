import type { Backend } from "../../src/backend.js";
import { bytesOf, type DType } from "../../src/dtype.js";
import type { Block } from "../../src/kernel.js";
import { Arena, Tensor } from "../../src/tensor.js";

/** A quiet NaN that no kernel makes: what is read uninitialised or from outside shows in the results. */
const SENTINEL = 0x7fc0dead;
/** Words in front of and behind every tensor; 256 bytes, which is the alignment. */
const GUARD = 64;

function wordsOf(dtype: DType, shape: readonly number[]): number {
  return Math.ceil(bytesOf(dtype, shape) / 4);
}

/** What an arena held at one moment. */
export interface Snapshot {
  /** The words of a tensor, of which the last may hold less than four of its bytes. */
  words(tensor: Tensor): Uint32Array;
  bytes(tensor: Tensor): Uint8Array;
  /** Everything, guards and saved values included, in the order of the allocations. */
  readonly all: Uint32Array;
  /** The guards that were written to, in words from the tensor's start; empty if all is well. */
  readonly violations: readonly string[];
}

/** An arena whose tensors begin as sentinels and stand between sentinels. */
export class GuardedArena extends Arena {
  readonly #guarded: { outer: Tensor; inner: Tensor }[] = [];

  constructor(backend: Backend) {
    super(backend, 1 << 18);
  }

  override tensor(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const outer = super.tensor([wordsOf(dtype, shape) + 2 * GUARD], "u32");
    outer.write(new Uint32Array(outer.size).fill(SENTINEL));
    const inner = new Tensor(this.backend, outer.block, outer.byteOffset + GUARD * 4, shape, dtype);
    this.#guarded.push({ outer, inner });
    return inner;
  }

  /** One read of every block, as a GPU takes its time over each. */
  async snapshot(): Promise<Snapshot> {
    const ends = new Map<Block, number>();
    for (const { outer } of this.#guarded) ends.set(outer.block, outer.byteOffset + outer.byteLength);
    const images = new Map<Block, Uint32Array>();
    for (const [block, byteLength] of ends) {
      images.set(block, new Uint32Array(await this.backend.read({ block, byteOffset: 0, byteLength })));
    }
    const words = (tensor: Tensor) => {
      const image = images.get(tensor.block) ?? new Uint32Array();
      const start = tensor.byteOffset / 4;
      return image.subarray(start, start + wordsOf(tensor.dtype, tensor.shape));
    };
    const bytes = (tensor: Tensor) => {
      const { buffer, byteOffset } = words(tensor);
      return new Uint8Array(buffer, byteOffset, tensor.byteLength);
    };
    return { words, bytes, all: this.#join(words), violations: this.#violations(words) };
  }

  #join(words: (tensor: Tensor) => Uint32Array): Uint32Array {
    const all = new Uint32Array(this.#guarded.reduce((sum, { outer }) => sum + outer.size, 0));
    let at = 0;
    for (const { outer } of this.#guarded) {
      all.set(words(outer), at);
      at += outer.size;
    }
    return all;
  }

  #violations(words: (tensor: Tensor) => Uint32Array): string[] {
    return this.#guarded.flatMap(({ outer, inner }, index) => {
      const image = words(outer);
      const broken: number[] = [];
      for (let i = 0; i < image.length; i++) {
        if (i === GUARD) i += wordsOf(inner.dtype, inner.shape);
        if (image[i] !== SENTINEL) broken.push(i - GUARD);
      }
      if (broken.length === 0) return [];
      return [`allocation ${index} of shape (${inner.shape.join(", ")}): words ${broken.join(", ")}`];
    });
  }
}
