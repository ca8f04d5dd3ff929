import { align, type Backend } from "../backend.js";
import { bytesOf } from "../dtype.js";
import { type KVTensors, kvAppend } from "../ops/kv-append.js";
import type { Tape } from "../tape.js";
import { Tensor } from "../tensor.js";
import type { ModelConfig } from "./config.js";

/** What keys and values are kept as. */
export type KVType = "f32" | "f16";

export const KV_TYPES: readonly KVType[] = ["f32", "f16"];

/** Positions that a cache grows by at least, and to a multiple of which. */
export const KV_BLOCK = 64;
/** A cache that is full grows to so many times what it needs: each row is then copied twice, on average. */
const GROWTH = 1.5;

/** What a cache may be told besides its size. */
export interface KVCacheOptions {
  /**
   * f16 takes half the memory, and reads half as much: a 15M Llama decoded 1.1 times as fast behind 512 positions and
   * 1.3 times behind 2048 (CPU time of one thread). See `kvAppend` for what it keeps. f32 by default.
   */
  readonly type?: KVType | undefined;
}

/**
 * The keys and values of the positions that sequences have been through, for every layer. Memory comes as positions
 * do. It is contiguous, so that a layer's keys are one operand of a kernel on every device; full, the rows move to
 * one half as long again. Of a 15M Llama all moves on the way to 2048 positions took 6.5 ms, and those tokens 7 s (CPU
 * time of one thread), so a table of pages would save nothing. Sequences may be of different lengths, each with its own
 * last position.
 */
export class KVCache {
  readonly #layers: KVTensors[];
  /** Positions held of each sequence. */
  #lengths: number[];
  /** Positions of a sequence that there is memory for. */
  #rows = 0;
  readonly type: KVType;

  /**
   * @param capacity most positions of a sequence that it can hold
   * @param batch sequences
   * @throws RangeError for another type, or heads of an odd length in f16
   */
  constructor(
    readonly backend: Backend,
    readonly config: ModelConfig,
    readonly capacity: number,
    batch = 1,
    { type = "f32" }: KVCacheOptions = {},
  ) {
    if (!KV_TYPES.includes(type)) {
      throw new RangeError(`kv cache: type must be one of ${KV_TYPES.join(", ")}, got '${type}'`);
    }
    if (type === "f16" && config.headDim % 2 !== 0) {
      throw new RangeError(`kv cache: f16 wants an even head_dim, the model has ${config.headDim}`);
    }
    this.type = type;
    this.#lengths = Array.from({ length: batch }, () => 0);
    this.#layers = [];
  }

  /** Sequences. */
  get batch(): number {
    return this.#lengths.length;
  }

  /** Positions held of the longest sequence. */
  get length(): number {
    return Math.max(0, ...this.#lengths);
  }

  /** Positions held of each sequence. */
  get lengths(): readonly number[] {
    return this.#lengths;
  }

  /** Bytes that the keys and values take. */
  get byteLength(): number {
    return this.#layers.length * 2 * align(bytesOf(this.type, this.#shape(this.#rows)));
  }

  #shape(rows: number): number[] {
    return [this.batch, rows, this.config.kvHeads, this.config.headDim];
  }

  /**
   * Makes room for `rows` more positions of every sequence.
   * @param homeOf in whose memory a layer lies; in the backend's where nothing is said
   * @throws RangeError where the capacity has none
   */
  reserve(rows: number, homeOf: (layer: number) => Backend = () => this.backend): void {
    const needed = this.length + rows;
    if (needed > this.capacity) {
      throw new RangeError(`forward: ${needed} positions, but the cache holds ${this.capacity}`);
    }
    if (needed <= this.#rows) return;
    // What the first pass brings is taken as it is: it may be all.
    const wanted = this.#rows === 0 ? needed : Math.floor(GROWTH * needed);
    const grown = Math.min(this.capacity, Math.ceil(wanted / KV_BLOCK) * KV_BLOCK);
    // One layer after the other, so that only one lies there twice.
    for (let layer = 0; layer < this.config.layers; layer++) {
      const old = this.#layers[layer];
      const home = homeOf(layer);
      this.#layers[layer] = { k: this.#moved(old?.k, grown, home), v: this.#moved(old?.v, grown, home) };
    }
    this.#rows = grown;
  }

  /** A tensor of so many rows with what another holds, which is given back. */
  #moved(old: Tensor | undefined, rows: number, home: Backend): Tensor {
    const shape = this.#shape(rows);
    const block = home.allocate(align(bytesOf(this.type, shape)), "kvCache");
    const tensor = new Tensor(home, block, 0, shape, this.type);
    if (!old) return tensor;
    for (const [i, length] of this.#lengths.entries()) this.#copyRows(tensor, i, old, i, length);
    home.free(old.block);
    return tensor;
  }

  /** Copies the first rows of a sequence over those of one of the same or another tensor. */
  #copyRows(to: Tensor, toSequence: number, from: Tensor, fromSequence: number, rows: number): void {
    const part = (tensor: Tensor, sequence: number) => {
      const [, all = 0, ...row] = tensor.shape;
      const byteOffset = tensor.byteOffset + bytesOf(this.type, [sequence * all, ...row]);
      return { block: tensor.block, byteOffset, byteLength: bytesOf(this.type, [rows, ...row]) };
    };
    if (rows > 0) to.backend.copy(part(to, toSequence), part(from, fromSequence));
  }

  /**
   * Puts a layer's new rows behind the others of their sequences, and returns the whole of its keys and values. There
   * must be room: see `reserve`.
   * @param k, v (batch, rows, kv_heads, head_dim)
   * @param positions `lengths` on the device, where the sequences differ in it
   */
  append(tape: Tape, layer: number, k: Tensor, v: Tensor, positions?: Tensor): KVTensors {
    const cache = this.#layers[layer];
    if (!cache) throw new RangeError(`kv cache: no room was reserved in layer ${layer}`);
    kvAppend(tape, cache, k, v, { position: this.length, positions });
    return cache;
  }

  /**
   * Counts rows as held, once every layer has appended them.
   * @param rows of each sequence, or of all; what a sequence appended beyond its own is padding
   */
  advance(rows: number | readonly number[]): void {
    this.#lengths = this.#lengths.map(
      (length, i) => length + (typeof rows === "number" ? rows : (rows[i] ?? 0)),
    );
  }

  /**
   * Forgets all positions from `length` on, of one sequence or of all.
   * @throws RangeError where there are not so many
   */
  truncate(length: number, sequence?: number): void {
    const held = sequence === undefined ? this.length : (this.#lengths[sequence] ?? -1);
    if (!Number.isInteger(length) || length < 0 || length > held) {
      throw new RangeError(`truncate: length must be from 0 to ${held}, got ${length}`);
    }
    this.#lengths = this.#lengths.map((own, i) =>
      sequence === undefined || sequence === i ? Math.min(own, length) : own,
    );
  }

  /**
   * Forgets all sequences but these, which move together.
   * @param sequences their numbers so far, ascending
   */
  keep(sequences: readonly number[]): void {
    for (const { k, v } of this.#layers) {
      for (const [to, from] of sequences.entries()) {
        if (to === from) continue;
        for (const tensor of [k, v]) this.#copyRows(tensor, to, tensor, from, this.#lengths[from] ?? 0);
      }
    }
    this.#lengths = sequences.map((from) => this.#lengths[from] ?? 0);
    for (const [i, { k, v }] of this.#layers.entries()) {
      this.#layers[i] = { k: this.#narrowed(k), v: this.#narrowed(v) };
    }
  }

  /** The same memory for as many sequences as are left. */
  #narrowed({ backend, block, byteOffset }: Tensor): Tensor {
    return new Tensor(backend, block, byteOffset, this.#shape(this.#rows), this.type);
  }

  /** Gives the memory back. The cache is then empty, and can be used again. */
  dispose(): void {
    for (const { k, v } of this.#layers) {
      k.backend.free(k.block);
      v.backend.free(v.block);
    }
    this.#layers.length = 0;
    this.#rows = 0;
    this.#lengths = this.#lengths.map(() => 0);
  }
}
