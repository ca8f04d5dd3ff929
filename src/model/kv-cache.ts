import type { Backend } from "../backend.js";
import { Parameters, type Tensor } from "../tensor.js";
import type { ModelConfig } from "./config.js";

/** The keys and values of the positions that sequences of one length have been through, for every layer. */
export class KVCache {
  readonly #tensors: Parameters;
  readonly #rowBytes: number;
  #length = 0;

  /**
   * @param capacity most positions of a sequence that it can hold
   * @param batch sequences
   */
  constructor(
    readonly backend: Backend,
    config: ModelConfig,
    readonly capacity: number,
    readonly batch = 1,
  ) {
    const shape = [batch, capacity, config.kvHeads, config.headDim];
    const names = Array.from({ length: config.layers }, (_, i) => [`${i}.k`, `${i}.v`]).flat();
    this.#tensors = new Parameters(backend, new Map(names.map((name) => [name, shape])), { use: "kvCache" });
    this.#rowBytes = config.kvHeads * config.headDim * 4;
  }

  /** Positions held of each sequence. */
  get length(): number {
    return this.#length;
  }

  /**
   * Puts a layer's new rows behind the others and returns the whole of its keys and values.
   * @param k, v (batch, rows, kv_heads, head_dim)
   */
  append(layer: number, k: Tensor, v: Tensor): { k: Tensor; v: Tensor } {
    const cache = { k: this.#tensors.get(`${layer}.k`), v: this.#tensors.get(`${layer}.v`) };
    for (const [to, from] of [
      [cache.k, k],
      [cache.v, v],
    ] as const) {
      const byteLength = from.byteLength / this.batch;
      for (let i = 0; i < this.batch; i++) {
        const row = i * this.capacity + this.#length;
        this.backend.copy(
          { block: to.block, byteOffset: to.byteOffset + row * this.#rowBytes, byteLength },
          { block: from.block, byteOffset: from.byteOffset + i * byteLength, byteLength },
        );
      }
    }
    return cache;
  }

  /** Counts rows of each sequence as held, once every layer has appended them. */
  advance(rows: number): void {
    this.#length += rows;
  }

  /** Forgets all positions from `length` on. */
  truncate(length: number): void {
    if (!Number.isInteger(length) || length < 0 || length > this.#length) {
      throw new RangeError(`truncate: length must be from 0 to ${this.#length}, got ${length}`);
    }
    this.#length = length;
  }

  dispose(): void {
    this.#tensors.dispose();
  }
}
