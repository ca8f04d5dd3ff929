/** Runs a case on a backend and compares it with its reference, its gradients with central differences. */

import { expect } from "vitest";
import type { Backend } from "../../src/backend.js";
import { decode, isStorage } from "../../src/dtype.js";
import { Tape } from "../../src/tape.js";
import { Tensor } from "../../src/tensor.js";
import { hostBytes, type Input, Nd, type OpCase, Random, type Tolerance, upload } from "./case.js";
import { GuardedArena, type Snapshot } from "./guard.js";

/** A few roundings of f32 (6e-8 each) in a row; what adds up more of them has its own. */
const FORWARD: Tolerance = { relative: 2e-6, absolute: 2e-6 };
const GRADIENT: Tolerance = { relative: 4e-6, absolute: 4e-6 };

const SAMPLES = 40;
/** Of the central differences, in root mean squares: their own error is its square, 1e-10. */
const STEP = 1e-5;

/** A derivative of the weighted sum of the results, by one coordinate or along a direction. */
interface Derivative {
  readonly where: string;
  /** Weight of every coordinate that takes part. */
  readonly direction: readonly (readonly [index: number, weight: number])[];
  readonly value: number;
}

/** All that does not depend on the backend. */
interface Prepared {
  readonly inputs: Readonly<Record<string, Input>>;
  readonly expected: Readonly<Record<string, Nd>>;
  readonly bound: Nd | undefined;
  readonly weights: Readonly<Record<string, Nd>>;
  readonly derivatives: Readonly<Record<string, readonly Derivative[]>>;
}

const prepared = new WeakMap<OpCase, Prepared>();

function named<T extends object>(
  result: T | Record<string, T>,
  isOne: (x: unknown) => x is T,
): Record<string, T> {
  return isOne(result) ? { out: result } : result;
}

function rootMeanSquare(values: readonly number[] | Float64Array): number {
  let sum = 0;
  let count = 0;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    sum += value * value;
    count++;
  }
  return Math.sqrt(sum / Math.max(count, 1));
}

/** Distinct coordinates: all, or `samples` of them. */
function chooseCoordinates(size: number, samples: number, random: Random): number[] {
  if (size <= samples) return Array.from({ length: size }, (_, i) => i);
  const chosen = new Set<number>();
  while (chosen.size < samples) chosen.add(random.below(size));
  return [...chosen];
}

function prepare(opCase: OpCase): Prepared {
  const known = prepared.get(opCase);
  if (known) return known;
  const random = new Random(opCase.name);
  const inputs = opCase.inputs(random);
  const values = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
  const isNd = (x: unknown): x is Nd => x instanceof Nd;
  const reference = () => named(opCase.reference(values), isNd);
  const expected = reference();
  const weights: Record<string, Nd> = {};
  for (const [name, out] of Object.entries(expected)) {
    const from = opCase.weights?.of === name ? values[opCase.weights.from] : undefined;
    weights[name] = from ?? random.normal(out.shape).map(Math.fround);
  }
  const objective = () => {
    let sum = 0;
    for (const [name, out] of Object.entries(reference())) {
      for (let i = 0; i < out.size; i++) sum += out.flat(i) * (weights[name]?.flat(i) ?? 0);
    }
    return sum;
  };
  const derivatives: Record<string, Derivative[]> = {};
  const samples = opCase.samples ?? SAMPLES;
  for (const [name, { value, requiresGrad }] of Object.entries(inputs)) {
    if (!requiresGrad || samples === 0) continue;
    derivatives[name] = differentiate(value, objective, samples, opCase.step, random);
  }
  const result = { inputs, expected, bound: opCase.bound?.(values), weights, derivatives };
  prepared.set(opCase, result);
  return result;
}

/** By single coordinates, and once along a random direction of ±1, which no wrong coordinate escapes. */
function differentiate(
  x: Nd,
  objective: () => number,
  samples: number,
  step: number | undefined,
  random: Random,
): Derivative[] {
  const h = step ?? STEP * (rootMeanSquare(x.data) || 1);
  const along = (where: string, direction: Derivative["direction"]): Derivative => {
    const before = direction.map(([i]) => x.flat(i));
    const moved = (sign: number) => {
      for (const [j, [i, weight]] of direction.entries()) x.data[i] = (before[j] ?? 0) + sign * weight * h;
      return objective();
    };
    const value = (moved(1) - moved(-1)) / (2 * h);
    for (const [j, [i]] of direction.entries()) x.data[i] = before[j] ?? 0;
    return { where, direction, value };
  };
  const single = chooseCoordinates(x.size, samples, random).map((i) => along(`[${i}]`, [[i, 1]]));
  if (x.size <= samples) return single;
  const signs = [...x.data.keys()].map((i) => [i, random.next() < 0.5 ? 1 : -1] as const);
  return [...single, along("along all coordinates", signs)];
}

/** What a run left behind. */
export interface Run {
  readonly snapshot: Snapshot;
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** The gradients before the run: what backward must add to. */
  readonly before: Readonly<Record<string, Float32Array>>;
}

/** Forward, and backward where there is something to differentiate, in a guarded arena. */
export async function execute(backend: Backend, opCase: OpCase): Promise<Run> {
  const { inputs, expected, weights, derivatives } = prepare(opCase);
  const arena = new GuardedArena(backend);
  const tape = new Tape(arena);
  const random = new Random(`${opCase.name}: gradients`);
  const tensors: Record<string, Tensor> = {};
  const before: Record<string, Float32Array> = {};
  for (const [name, input] of Object.entries(inputs)) {
    const tensor = upload(tape, input);
    tensors[name] = tensor;
    if (!input.requiresGrad) continue;
    const size = rootMeanSquare((derivatives[name] ?? []).map(({ value }) => value)) || 1;
    const start = Float32Array.from(random.normal(input.value.shape, size).data);
    before[name] = start;
    tensor.grad = tape.from(start, input.value.shape);
  }
  const isTensor = (x: unknown): x is Tensor => x instanceof Tensor;
  const outputs = named(opCase.run(tape, tensors), isTensor);
  for (const [name, out] of Object.entries(outputs)) {
    expect(out.shape, `shape of ${name}`).toEqual(expected[name]?.shape);
  }
  // The results as they are now: a backward may reuse what it has read.
  if (Object.keys(derivatives).length > 0) {
    for (const [name, out] of Object.entries(outputs)) {
      const weight = weights[name];
      if (out.requiresGrad && weight) out.grad = tape.from(Float32Array.from(weight.data), out.shape);
    }
    tape.backward();
  }
  const snapshot = await arena.snapshot();
  arena.dispose();
  return { snapshot, outputs, inputs: tensors, before };
}

/** The largest departure from what is wanted, in multiples of what is allowed. */
interface Worst {
  ratio: number;
  message: string;
}

function compare(worst: Worst, where: string, got: number, want: number, allowed: number): void {
  if (Object.is(got, want) || got === want || (Number.isNaN(got) && Number.isNaN(want))) return;
  const error = Math.abs(got - want);
  const ratio = Number.isFinite(error) ? error / allowed : Number.POSITIVE_INFINITY;
  if (ratio <= worst.ratio) return;
  worst.ratio = ratio;
  worst.message = `${where}: got ${got}, expected ${want} ± ${allowed.toPrecision(2)}`;
}

/** What a tensor held, the values of a storage format decoded. */
function valuesOf(snapshot: Snapshot, tensor: Tensor): Uint32Array | Float32Array {
  if (isStorage(tensor.dtype)) return decode(tensor.dtype, snapshot.bytes(tensor));
  const words = snapshot.words(tensor);
  return tensor.dtype === "u32" ? words : new Float32Array(words.buffer, words.byteOffset, words.length);
}

function compareOutputs(worst: Worst, run: Run, { expected, bound }: Prepared, tolerance: Tolerance): void {
  for (const [name, out] of Object.entries(run.outputs)) {
    const want = expected[name];
    if (!want) throw new Error(`the reference has no '${name}'`);
    const got = valuesOf(run.snapshot, out);
    const scale = out.dtype === "u32" ? 0 : rootMeanSquare(want.data);
    for (let i = 0; i < want.size; i++) {
      const value = Math.abs(want.flat(i)) > 3.4028235677973366e38 ? want.flat(i) * Infinity : want.flat(i);
      const allowed =
        tolerance.relative * Math.abs(value) +
        tolerance.absolute * scale +
        (tolerance.floor ?? 0) +
        (bound?.flat(i) ?? 0);
      compare(worst, `${name}[${i}]`, got[i] ?? Number.NaN, value, allowed);
    }
  }
}

function compareGradients(worst: Worst, run: Run, { derivatives }: Prepared, tolerance: Tolerance): void {
  for (const [name, list] of Object.entries(derivatives)) {
    const grad = run.inputs[name]?.grad;
    const before = run.before[name];
    if (!grad || !before) throw new Error(`${name} has no gradient`);
    const words = run.snapshot.words(grad);
    const after = new Float32Array(words.buffer, words.byteOffset, words.length);
    const added = (i: number) => (after[i] ?? Number.NaN) - (before[i] ?? 0);
    const scale = rootMeanSquare(
      list.filter(({ direction }) => direction.length === 1).map(({ value }) => value),
    );
    for (const { where, direction, value } of list) {
      const got = direction.reduce((sum, [i, weight]) => sum + weight * added(i), 0);
      // The gradient that was there takes its share of the digits.
      const base = 1.2e-7 * rootMeanSquare(direction.map(([i]) => before[i] ?? 0));
      const floor = tolerance.floor ?? 0;
      const spread = Math.sqrt(direction.length);
      const allowed =
        tolerance.relative * Math.abs(value) + spread * (tolerance.absolute * scale + base + floor);
      compare(worst, `d${name}${where}`, got, value, allowed);
    }
  }
}

/** The first index at which two arrays differ; -1 where they are the same. Far quicker than `toEqual`. */
export function firstDifference(a: Uint32Array | Uint8Array, b: Uint32Array | Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

/**
 * The same for words that hold f32. Two NaNs are the same whatever their bits: WebAssembly leaves the sign and payload
 * of a NaN open, and V8's two compilers, which change over when a kernel is warm, differ in it.
 */
export function firstDifferentValue(a: Uint32Array, b: Uint32Array): number {
  const holdsNaN = (word = 0) => (word & 0x7fffffff) > 0x7f800000;
  if (a.length !== b.length) return Math.min(a.length, b.length);
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i] && !(holdsNaN(a[i]) && holdsNaN(b[i]))) return i;
  return -1;
}

/** What `check` measured, in multiples of what it allows. */
export interface Report {
  readonly forward: number;
  readonly gradient: number;
}

/**
 * Throws, through vitest, unless the case holds on this backend.
 * @param slack factor of all tolerances, for a machine whose own functions are coarser
 */
export async function check(backend: Backend, opCase: OpCase, slack = 1): Promise<Report> {
  const run = await execute(backend, opCase);
  const prepared = prepare(opCase);
  expect(run.snapshot.violations, "written outside of a tensor").toEqual([]);
  for (const [name, input] of Object.entries(prepared.inputs)) {
    const tensor = run.inputs[name];
    const changed = tensor ? firstDifference(run.snapshot.bytes(tensor), hostBytes(input)) : -1;
    expect(changed, `the operand ${name} was changed, first at`).toBe(-1);
    if (tensor && !input.requiresGrad) expect(tensor.grad, `gradient of ${name}`).toBeUndefined();
  }
  const times = ({ relative, absolute, floor = 0 }: Tolerance) => ({
    relative: relative * slack,
    absolute: absolute * slack,
    floor: floor * slack,
  });
  const forward: Worst = { ratio: 0, message: "" };
  compareOutputs(forward, run, prepared, times(opCase.tolerance?.forward ?? FORWARD));
  const gradient: Worst = { ratio: 0, message: "" };
  compareGradients(gradient, run, prepared, times(opCase.tolerance?.gradient ?? GRADIENT));
  for (const worst of [forward, gradient]) {
    if (worst.ratio > 1)
      expect.fail(`${worst.message} (${worst.ratio.toPrecision(3)} times what is allowed)`);
  }
  return { forward: forward.ratio, gradient: gradient.ratio };
}
