/**
 * Accuracy of the vector functions of `assembly/` against float64, over a dense sample of all of f32, by a small
 * module that imports them and is compiled here.
 */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";
import { beforeAll, describe, expect, it } from "vitest";
import { normalCdf } from "./ops/gelu.js";

/**
 * Distance of the sampled bit patterns, a prime: 4 million of the 2^32. The bounds below were measured with
 * distance 29 (`ORIFLAMME_STRIDE=29`, some minutes) and rounded up.
 */
const STRIDE = Number(process.env.ORIFLAMME_STRIDE ?? 1009);

const ENTRY_FILE = "assembly/math-test.ts";
const ENTRY = `
import { exp4, expConstants, log1, sigmoid4 } from "./simd";
export { gelu } from "./activation";
export function exp(out: usize, x: usize, n: u32): void {
  const c = expConstants();
  for (let i: usize = 0; i < <usize>n << 2; i += 16) v128.store(out + i, exp4(v128.load(x + i), c));
}
export function sigmoid(out: usize, x: usize, n: u32): void {
  const c = expConstants();
  for (let i: usize = 0; i < <usize>n << 2; i += 16) v128.store(out + i, sigmoid4(v128.load(x + i), c));
}
export function log(out: usize, x: usize, n: u32): void {
  for (let i: usize = 0; i < <usize>n << 2; i += 4) store<f32>(out + i, log1(load<f32>(x + i)));
}
`;

/** f32 values in, f32 values out; the result is overwritten by the next call. */
type Apply = (x: Float32Array) => Float32Array;

interface Functions {
  readonly exp: Apply;
  readonly log: Apply;
  readonly sigmoid: Apply;
  readonly geluErf: Apply;
  readonly geluTanh: Apply;
}

/** Values of a call. */
const CHUNK = 1 << 16;

async function compile(features: readonly string[]): Promise<Functions> {
  const root = fileURLToPath(new URL("../", import.meta.url));
  const flags = ["--enable", "simd", "--runtime", "stub", "--importMemory", "--noAssert", "-O3"];
  let binary: Uint8Array | undefined;
  const { error, stderr } = await asc.main(
    [ENTRY_FILE, "--baseDir", root, ...flags, ...features, "--outFile", "math.wasm"],
    {
      readFile: (name, base) =>
        name === ENTRY_FILE ? ENTRY : readFile(`${base}/${name}`, "utf8").catch(() => null),
      writeFile: (_, contents) => {
        if (typeof contents !== "string") binary = contents;
      },
    },
  );
  if (error || !binary) throw new Error(`asc: ${stderr.toString()}`, { cause: error });
  const memory = new WebAssembly.Memory({ initial: 32 });
  const { instance } = await WebAssembly.instantiate(Uint8Array.from(binary), { env: { memory } });
  const [from, to] = [1 << 16, 1 << 20];
  const apply = (name: string, ...rest: number[]): Apply => {
    const call = instance.exports[name] as (...args: number[]) => void;
    return (x) => {
      new Float32Array(memory.buffer, from, x.length).set(x);
      call(to, from, x.length, ...(rest.length ? [...rest, 0, x.length] : []));
      return new Float32Array(memory.buffer, to, x.length);
    };
  };
  return {
    exp: apply("exp"),
    log: apply("log"),
    sigmoid: apply("sigmoid"),
    geluErf: apply("gelu", 1),
    geluTanh: apply("gelu", 0),
  };
}

/** The largest errors of a function on a part of the line. */
interface Errors {
  /** Relative, of normal results, in half last places of 1: 2^-24. */
  relative: number;
  relativeAt: number;
  /** Absolute, of subnormal results, in last places: 2^-149. */
  subnormal: number;
  /** The first argument whose result is NaN, infinite or of the wrong sign where it should not be. */
  wrong: number | undefined;
}

const LEAST_NORMAL = 2 ** -126;
const LARGEST = 2 ** 128 - 2 ** 104;

/** Compares over all bit patterns that are multiples of STRIDE and values in [from, to], and NaN. */
function measure(apply: Apply, reference: (x: number) => number, from: number, to: number): Errors {
  const errors: Errors = { relative: 0, relativeAt: 0, subnormal: 0, wrong: undefined };
  const x = new Float32Array(CHUNK);
  const bits = new Uint32Array(x.buffer);
  for (let next = 0; next < 2 ** 32; ) {
    for (let i = 0; i < CHUNK; i++, next += STRIDE) bits[i] = Math.min(next, 2 ** 32 - 1);
    const y = apply(x);
    for (let i = 0; i < CHUNK; i++) {
      const at = x[i] ?? 0;
      if (!(at < from || at > to)) compare(errors, at, y[i] ?? 0, reference(at));
    }
  }
  return errors;
}

function compare(errors: Errors, x: number, got: number, want: number): void {
  if (Object.is(got, want) || got === want) return;
  const size = Math.abs(want);
  if (size > LARGEST || Number.isNaN(want) || !Number.isFinite(got) || got * want < 0) {
    // The last place before the overflow may go either way.
    if (Math.abs(got) < LARGEST * (1 - 2 ** -22) || size < LARGEST * (1 - 2 ** -22)) errors.wrong ??= x;
  } else if (size < LEAST_NORMAL) {
    errors.subnormal = Math.max(errors.subnormal, Math.abs(got - want) * 2 ** 149);
  } else {
    const relative = (Math.abs(got - want) / size) * 2 ** 24;
    if (relative > errors.relative) [errors.relative, errors.relativeAt] = [relative, x];
  }
}

const references = {
  exp: Math.exp,
  log: Math.log,
  sigmoid: (x: number) => 1 / (1 + Math.exp(-x)),
  geluErf: (x: number) => (x === Number.NEGATIVE_INFINITY ? 0 : x * normalCdf(x)),
  geluTanh: (x: number) => {
    const gate = 1 / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
    return gate === 0 ? 0 : x * gate;
  },
};

interface Bound {
  readonly name: keyof typeof references;
  /** The part of the line that the bound is for. */
  readonly from: number;
  readonly to?: number;
  /** See `Errors`. */
  readonly relative: number;
  readonly subnormal?: number;
}

const bounds: readonly Bound[] = [
  { name: "exp", from: -Infinity, relative: 2, subnormal: 1 },
  // ln of a subnormal is not promised.
  { name: "log", from: LEAST_NORMAL, relative: 4 },
  { name: "sigmoid", from: -88.7, relative: 3, subnormal: 1 },
  // e^-x overflows: 0 for what is left of the subnormals.
  { name: "sigmoid", from: -Infinity, to: -88.7, relative: 0, subnormal: 2 ** 21 },
  { name: "geluErf", from: -1, relative: 10, subnormal: 1 },
  // In the tail the argument of the exponential grows, and with it the error of its rounding.
  { name: "geluErf", from: -5, to: -1, relative: 45 },
  { name: "geluErf", from: -Infinity, to: -5, relative: 350, subnormal: 200 },
  { name: "geluTanh", from: -1, relative: 5, subnormal: 1 },
  { name: "geluTanh", from: -5, to: -1, relative: 45 },
  { name: "geluTanh", from: -10.05, to: -5, relative: 250 },
  // As sigmoid: 0 for results under 3.3e-38.
  { name: "geluTanh", from: -Infinity, to: -10.05, relative: 2 ** 24, subnormal: 2 ** 23 },
];

for (const [build, features] of Object.entries({ baseline: [], relaxed: ["--enable", "relaxed-simd"] })) {
  describe(build, () => {
    let functions: Functions;

    beforeAll(async () => {
      functions = await compile(features);
    });

    for (const { name, from, to = Number.POSITIVE_INFINITY, relative, subnormal = 0 } of bounds) {
      it(`${name} from ${from} to ${to}: ${relative} · 2^-24, ${subnormal} · 2^-149`, () => {
        const errors = measure(functions[name], references[name], from, to);
        if (process.env.ORIFLAMME_STRIDE) console.log(build, name, from, to, JSON.stringify(errors));
        expect(errors.wrong, "argument with a result of another kind").toBeUndefined();
        expect(errors.relative, `relative error at ${errors.relativeAt}`).toBeLessThanOrEqual(relative);
        expect(errors.subnormal, "error of subnormal results").toBeLessThanOrEqual(subnormal);
      });
    }

    it("the ends are exact", () => {
      const { exp, log, sigmoid } = functions;
      const [nan, inf] = [Number.NaN, Number.POSITIVE_INFINITY];
      expect([...exp(Float32Array.of(0, -0, inf, -inf, nan, 89, -104, 1e30))]).toEqual([
        1,
        1,
        inf,
        0,
        nan,
        inf,
        0,
        inf,
      ]);
      expect([...log(Float32Array.of(1, inf, 0, -0, -1, nan, -inf, 1))]).toEqual([
        0,
        inf,
        -inf,
        -inf,
        nan,
        nan,
        nan,
        0,
      ]);
      expect([...sigmoid(Float32Array.of(0, -0, inf, -inf, nan, 1e30, -1e30, 100))]).toEqual([
        0.5,
        0.5,
        1,
        0,
        nan,
        1,
        0,
        1,
      ]);
    });
  });
}
