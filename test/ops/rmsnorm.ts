import { rmsnorm } from "../../src/ops/rmsnorm.js";
import { type CaseOptions, frozen, Nd, type OpCase, opCase, trainable } from "./case.js";

function reference(x: Nd, weight: Nd, eps: number): Nd {
  const m = x.matrix();
  const out = new Nd(m.shape);
  for (let r = 0; r < m.rows; r++) {
    let squares = 0;
    for (let c = 0; c < m.cols; c++) squares += m.at(r, c) ** 2;
    const rms = Math.sqrt(squares / m.cols + eps);
    for (let c = 0; c < m.cols; c++) out.set((m.at(r, c) / rms) * weight.at(c), r, c);
  }
  return out.as(x.shape);
}

function rmsnormCase(shape: readonly number[], scale = 1, eps = 1e-5, extra: CaseOptions = {}): OpCase {
  const cols = shape.at(-1) ?? 0;
  return opCase({
    name: `(${shape.join(", ")})${scale === 1 ? "" : ` of ${scale}`}, eps ${eps}`,
    inputs: (random) => ({
      x: trainable(random.normal(shape, scale)),
      weight: trainable(random.normal([cols])),
    }),
    run: (tape, { x, weight }) => rmsnorm(tape, x, weight, eps),
    reference: ({ x, weight }) => reference(x, weight, eps),
    ...extra,
  });
}

/** One column: only eps keeps the gradient from 0, the difference of two numbers near 1. */
const CANCELS = { relative: 1e-5, absolute: 0, floor: 5e-7 };

const nonFinite = [Number.NaN, Number.POSITIVE_INFINITY].map((value) =>
  opCase({
    name: `${value} in one row`,
    inputs: (random) => ({
      x: frozen(random.normal([3, 7]).map((x, i) => (i === 8 ? value : x))),
      weight: frozen(random.normal([7])),
    }),
    run: (tape, { x, weight }) => rmsnorm(tape, x, weight, 1e-5),
    reference: ({ x, weight }) => reference(x, weight, 1e-5),
    wasmOnly: true,
  }),
);

export const rmsnormCases = [
  ...[
    [1, 1],
    [3, 1],
  ].map((shape) => rmsnormCase(shape, 1, 1e-5, { tolerance: { gradient: CANCELS } })),
  ...[
    [2, 3],
    [5, 4],
    [2, 3, 7],
    [7, 13],
    [65, 5],
    [2, 257],
  ].map((shape) => rmsnormCase(shape)),
  rmsnormCase([3, 12], 1, 1e-6),
  // The squares still hold in f32; the cube of 1 / rms does not.
  rmsnormCase([3, 9], 1e18),
  rmsnormCase([3, 9], 1e-3),
  rmsnormCase([3, 9], 0, 1e-5, { step: 1e-8 }),
  opCase({
    name: "zero weights",
    inputs: (random) => ({ x: trainable(random.normal([3, 6])), weight: trainable(new Nd([6])) }),
    run: (tape, { x, weight }) => rmsnorm(tape, x, weight, 1e-5),
    reference: ({ x, weight }) => reference(x, weight, 1e-5),
  }),
  ...nonFinite,
  rmsnormCase([512, 1024], 1, 1e-5, {
    samples: 0,
    bench: { shape: [512, 1024], bytes: 512 * 1024 * 8, backward: 4 },
  }),
];
