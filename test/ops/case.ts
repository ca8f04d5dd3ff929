/**
 * What a case of an op is. One list per op (`test/ops/<op>.ts`) drives the forward test, the gradient check and
 * the microbenchmark on every backend.
 */

import { type DType, decode, encode, isStorage, type StorageType } from "../../src/dtype.js";
import type { Tape } from "../../src/tape.js";
import { sizeOf, type Tensor } from "../../src/tensor.js";

/** A row-major float64 array of up to four dimensions: what references compute on. */
export class Nd {
  readonly #strides: readonly [number, number, number, number];
  readonly data: Float64Array;

  constructor(
    readonly shape: readonly number[],
    data?: ArrayLike<number>,
  ) {
    if (shape.length > 4) throw new RangeError(`at most four dimensions, got ${shape.length}`);
    if (data && data.length !== sizeOf(shape)) throw new RangeError(`${data.length} values for (${shape})`);
    this.data = data ? Float64Array.from(data) : new Float64Array(sizeOf(shape));
    const stride = (axis: number) => (axis < shape.length ? sizeOf(shape.slice(axis + 1)) : 0);
    this.#strides = [stride(0), stride(1), stride(2), stride(3)];
  }

  get size(): number {
    return this.data.length;
  }

  /** All but the last dimension, as of a matrix. */
  get rows(): number {
    return this.size / this.cols;
  }

  get cols(): number {
    return this.shape.at(-1) ?? 1;
  }

  #index(i: number, j: number, k: number, l: number): number {
    const [a, b, c, d] = this.#strides;
    return i * a + j * b + k * c + l * d;
  }

  /** NaN where the index is outside, so that a reference that strays is seen. */
  at(i: number, j = 0, k = 0, l = 0): number {
    return this.data[this.#index(i, j, k, l)] ?? Number.NaN;
  }

  /** By position in memory, whatever the shape. */
  flat(i: number): number {
    return this.data[i] ?? Number.NaN;
  }

  set(value: number, i: number, j = 0, k = 0, l = 0): void {
    this.data[this.#index(i, j, k, l)] = value;
  }

  /** The same values under another shape. */
  as(shape: readonly number[]): Nd {
    return new Nd(shape, this.data);
  }

  /** The same values as (rows, cols). */
  matrix(): Nd {
    return this.as([this.rows, this.cols]);
  }

  map(value: (x: number, index: number) => number): Nd {
    return new Nd(this.shape, this.data.map(value));
  }
}

/** An operand of a case. Its values are rounded to its dtype, so the reference sees what the kernel sees. */
export interface Input {
  readonly value: Nd;
  readonly dtype: DType;
  readonly requiresGrad: boolean;
}

function rounded(value: Nd): Nd {
  return value.map(Math.fround);
}

/** An operand that the gradient check differentiates by. */
export function trainable(value: Nd): Input {
  return { value: rounded(value), dtype: "f32", requiresGrad: true };
}

/** An operand without a gradient. */
export function frozen(value: Nd): Input {
  return { value: rounded(value), dtype: "f32", requiresGrad: false };
}

/** A matrix in a storage format, whose values are what is stored. */
export function stored(value: Nd, dtype: StorageType): Input {
  const bytes = encode(dtype, Float32Array.from(value.data));
  return { value: new Nd(value.shape, decode(dtype, bytes)), dtype, requiresGrad: false };
}

/** The bytes of an operand as they lie on a backend. Encoding what was decoded gives the same bytes again. */
export function hostBytes({ value, dtype }: Input): Uint8Array {
  if (dtype === "u32") return new Uint8Array(Uint32Array.from(value.data).buffer);
  const values = Float32Array.from(value.data);
  return isStorage(dtype) ? encode(dtype, values) : new Uint8Array(values.buffer);
}

/** An operand on the tape's backend. */
export function upload(tape: Tape, input: Input): Tensor {
  const tensor = tape.empty(input.value.shape, input.dtype);
  tape.backend.write(tensor, hostBytes(input));
  tensor.requiresGrad = input.requiresGrad;
  return tensor;
}

/** Token ids or indices. */
export function ids(values: readonly number[]): Input {
  return { value: new Nd([values.length], values), dtype: "u32", requiresGrad: false };
}

/** Numbers that depend on the seed only. */
export class Random {
  #state: number;

  /** @param seed any text, hashed by FNV-1a */
  constructor(seed: string) {
    let hash = 0x811c9dc5;
    for (const char of seed) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193);
    this.#state = hash;
  }

  /** In [0, 1), by Mulberry32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let x = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer in [0, below). */
  below(below: number): number {
    return Math.floor(this.next() * below);
  }

  /** Normally distributed values. */
  normal(shape: readonly number[], scale = 1): Nd {
    const one = () => Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(2 * Math.PI * this.next());
    return new Nd(shape).map(() => scale * one());
  }

  /** Values in [low, high). */
  uniform(shape: readonly number[], low: number, high: number): Nd {
    return new Nd(shape).map(() => low + (high - low) * this.next());
  }

  /** Integers in [0, below). */
  integers(count: number, below: number): number[] {
    return Array.from({ length: count }, () => this.below(below));
  }
}

/** |got - want| may be `relative`·|want| + `absolute`·(root mean square of what is wanted) + `floor`. */
export interface Tolerance {
  readonly relative: number;
  readonly absolute: number;
  /** For what cancels out: a bound from the numbers that it is the difference of. */
  readonly floor?: number;
}

/** What a benchmark of the case counts. */
export interface BenchInfo {
  /** As the bench line prints it: the same for the same work whoever does it. */
  readonly shape: readonly number[];
  /** Of one forward pass; give one of the two. */
  readonly flops?: number;
  readonly bytes?: number;
  /** The work of forward and backward together, in multiples of the forward's. */
  readonly backward?: number;
  /** What the weights are stored as, where it is not f32. */
  readonly dtype?: StorageType;
}

/** A case with its operands' names erased. */
export interface OpCase<N extends string = string> {
  readonly name: string;
  readonly inputs: (random: Random) => Record<N, Input>;
  /** Runs the op; a single result is called `out`. */
  readonly run: (tape: Tape, x: Record<N, Tensor>) => Tensor | Record<string, Tensor>;
  /** The same in float64, by plain loops. */
  readonly reference: (x: Record<N, Nd>) => Nd | Record<string, Nd>;
  /** Departures from the defaults of the harness; say why beside it. */
  readonly tolerance?: { readonly forward?: Tolerance; readonly gradient?: Tolerance };
  /** What the op says that an output may err by, besides the tolerance: one of a single result's shape. */
  readonly bound?: (x: Record<N, Nd>) => Nd;
  /**
   * Weight of every result in the scalar whose gradient is checked; random by default. A loss, which writes the
   * gradient of its weighted sum at once, names the operand that holds its weights.
   */
  readonly weights?: { readonly of: string; readonly from: NoInfer<N> };
  /** Step of the central differences; by default a small part of the operand's root mean square. */
  readonly step?: number;
  /** Coordinates of an operand to differentiate by (40 by default, all where there are few); 0: forward only. */
  readonly samples?: number;
  /** Non-finite and subnormal values, whose handling WGSL leaves open. */
  readonly wasmOnly?: boolean;
  readonly bench?: BenchInfo;
}

/** What a list adds to its cases besides their operands. */
export type CaseOptions = Partial<Omit<OpCase, "inputs" | "run" | "reference" | "weights" | "bound">>;

/** Declares a case: the names of `inputs` are the names that `run` and `reference` see. */
export function opCase<N extends string>(spec: OpCase<N>): OpCase {
  return spec as unknown as OpCase;
}
