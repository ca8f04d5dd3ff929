import type { Backend } from "../backend.js";
import { Parameters, Tensor } from "../tensor.js";
import type { ModelConfig } from "./config.js";

/** The keys and values of the positions that a sequence has been through, for every layer. */
export class KVCache {
  readonly #tensors: Parameters;
  readonly #rowBytes: number;
  #length = 0;

  /** @param capacity most positions it can hold */
  constructor(
    readonly backend: Backend,
    config: ModelConfig,
    readonly capacity: number,
  ) {
    const shape = [1, capacity, config.kvHeads, config.headDim];
    const names = Array.from({ length: config.layers }, (_, i) => [`${i}.k`, `${i}.v`]).flat();
    this.#tensors = new Parameters(backend, new Map(names.map((name) => [name, shape])), { use: "kvCache" });
    this.#rowBytes = config.kvHeads * config.headDim * 4;
  }

  /** Positions held. */
  get length(): number {
    return this.#length;
  }

  /** Puts a layer's new rows behind the others and returns the whole of its keys and values. */
  append(layer: number, k: Tensor, v: Tensor): { k: Tensor; v: Tensor } {
    const cache = { k: this.#tensors.get(`${layer}.k`), v: this.#tensors.get(`${layer}.v`) };
    const offset = this.#length * this.#rowBytes;
    for (const [to, from] of [
      [cache.k, k],
      [cache.v, v],
    ] as const) {
      this.backend.copy(new Tensor(this.backend, to.block, to.byteOffset + offset, from.shape), from);
    }
    return cache;
  }

  /** Counts rows as held, once every layer has appended them. */
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
