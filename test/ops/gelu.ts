import { gelu } from "../../src/ops/gelu.js";
import { slice } from "../../src/ops/slice.js";
import type { Tape } from "../../src/tape.js";
import type { Tensor } from "../../src/tensor.js";
import { frozen, Nd, opCase, trainable } from "./case.js";

/**
 * erfc(z) for z >= 0, by the series of erf near 0 and a continued fraction (Abramowitz and Stegun 7.1.6, 7.1.14)
 * beyond, to about 1e-15.
 */
export function erfc(z: number): number {
  if (z < 2) {
    let term = z;
    let sum = z;
    for (let n = 1; n < 60; n++) {
      term *= (2 * z * z) / (2 * n + 1);
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
  }
  let fraction = 0;
  for (let n = 120; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction);
}

/** The normal distribution function. */
export function normalCdf(x: number): number {
  const half = erfc(Math.abs(x) / Math.SQRT2) / 2;
  return x < 0 ? half : 1 - half;
}

/** x · gate, with the limit 0 at -Infinity (PyTorch gives NaN there). */
function gated(x: number, gate: number): number {
  return gate === 0 ? 0 : x * gate;
}

const forms = {
  erf: (x: number) => gated(x, normalCdf(x)),
  // 1 + tanh(u) = 2 / (1 + e^-2u), which keeps its digits where tanh nears -1.
  tanh: (x: number) => gated(x, 1 / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))),
};

/** Its backward writes over its operand, so it gets a copy. */
const run =
  (form: "tanh" | "erf") =>
  (tape: Tape, { x }: { x: Tensor }) =>
    gelu(tape, slice(tape, x, 0, x.shape.at(-1) ?? 0), form);

/**
 * Far out in the tail the argument of the exponential is near -30, where its rounding alone is 2e-6; the steps
 * before it add to that.
 */
const tail = { relative: 2e-5, absolute: 2e-6 };

export const geluCases = (["erf", "tanh"] as const).flatMap((form) => [
  ...[1, 3, 4, 17, 257].map((n) =>
    opCase({
      name: `${form}, ${n} values`,
      inputs: (random) => ({ x: trainable(random.normal([n], 2)) }),
      run: run(form),
      reference: ({ x }) => x.map(forms[form]),
    }),
  ),
  opCase({
    name: `${form}, from -8 to 8`,
    inputs: () => ({ x: trainable(new Nd([47]).map((_, i) => (i - 23) / 2.875)) }),
    run: run(form),
    reference: ({ x }) => x.map(forms[form]),
    tolerance: { forward: { ...tail, absolute: 0 }, gradient: tail },
  }),
  opCase({
    name: `${form}, values of ±20 to ±1e4`,
    inputs: () => ({ x: trainable(new Nd([8], [-1e4, -100, -50, -20, 20, 50, 100, 1e4])) }),
    run: run(form),
    reference: ({ x }) => x.map(forms[form]),
    step: 1e-2,
  }),
  opCase({
    name: `${form}, values of ±1e15 to ±1e38`,
    inputs: () => ({ x: trainable(new Nd([6], [-1e38, -1e30, -1e15, 1e15, 1e30, 1e38])) }),
    run: run(form),
    reference: ({ x }) => x.map(forms[form]),
    samples: 0,
  }),
  opCase({
    name: `${form}, non-finite values`,
    inputs: () => ({
      x: frozen(new Nd([5], [Number.NaN, 1, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN])),
    }),
    run: run(form),
    reference: ({ x }) => x.map(forms[form]),
    wasmOnly: true,
  }),
  opCase({
    name: `bench, ${form}`,
    inputs: (random) => ({ x: trainable(random.normal([512, 1024])) }),
    run: run(form),
    reference: ({ x }) => x.map(forms[form]),
    samples: 0,
    bench: { shape: [512, 1024, form === "erf" ? 1 : 0], bytes: 512 * 1024 * 16, backward: 3 },
  }),
]);
