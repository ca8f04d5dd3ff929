import { softmax } from "../../src/ops/softmax.js";
import { type CaseOptions, frozen, Nd, type OpCase, opCase, type Random, trainable } from "./case.js";

/** Softmax of every row. */
export function softmaxReference(x: Nd): Nd {
  const out = new Nd([x.rows, x.cols]);
  const m = x.matrix();
  for (let r = 0; r < m.rows; r++) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let c = 0; c < m.cols; c++) largest = Math.max(largest, m.at(r, c));
    let sum = 0;
    for (let c = 0; c < m.cols; c++) sum += Math.exp(m.at(r, c) - largest);
    for (let c = 0; c < m.cols; c++) out.set(Math.exp(m.at(r, c) - largest) / sum, r, c);
  }
  return out.as(x.shape);
}

/** Probabilities are right relatively, however small; those under f32's normal range to its last subnormal bit. */
const tolerance = { forward: { relative: 2e-6, absolute: 1e-38 } };

function softmaxCase(name: string, values: (random: Random) => Nd, extra: CaseOptions = {}): OpCase {
  return opCase({
    name,
    inputs: (random) => ({ x: trainable(values(random)) }),
    run: (tape, { x }) => softmax(tape, x),
    reference: ({ x }) => softmaxReference(x),
    tolerance,
    ...extra,
  });
}

const shapes = [
  [1, 1],
  [3, 1],
  [1, 2],
  [5, 3],
  [2, 4],
  [2, 3, 7],
  [3, 65],
  [2, 257],
] as const;

const nonFinite = {
  NaN: [0.5, Number.NaN, 1, 2, 3],
  Infinity: [0.5, Number.POSITIVE_INFINITY, 1, 2, 3],
  "-Infinity": [0.5, Number.NEGATIVE_INFINITY, 1, 2, 3],
  "-Infinity in the tail": [0.5, 1, 2, 3, Number.NEGATIVE_INFINITY],
  "NaN in the tail": [0.5, 1, 2, 3, Number.NaN],
  "-Infinity only": [1, 2, 3, 4, 5].map(() => Number.NEGATIVE_INFINITY),
};

export const softmaxCases = [
  ...shapes.map((shape) => softmaxCase(`(${shape.join(", ")})`, (random) => random.normal(shape, 2))),
  softmaxCase("logits of ±1e4", (random) => random.uniform([4, 21], -1e4, 1e4), { step: 1e-4 }),
  softmaxCase("logits close together at 1e4", (random) => random.normal([3, 9]).map((x) => 1e4 + x), {
    step: 1e-4,
  }),
  softmaxCase("values of ±1e30", (random) => random.normal([3, 9], 1e30), { samples: 0 }),
  softmaxCase("equal values of 3e38", () => new Nd([2, 5]).map(() => 3e38), { samples: 0 }),
  softmaxCase("down to probabilities of e^-80", () => new Nd([1, 81]).map((_, i) => -i), { samples: 24 }),
  softmaxCase("down to subnormal probabilities", () => new Nd([1, 111]).map((_, i) => -i), {
    wasmOnly: true,
  }),
  ...Object.entries(nonFinite).map(([name, row]) =>
    opCase({
      name,
      inputs: () => ({ x: frozen(new Nd([1, 5], row)) }),
      run: (tape, { x }) => softmax(tape, x),
      reference: ({ x }) => softmaxReference(x),
      tolerance,
      wasmOnly: true,
    }),
  ),
  opCase({
    name: "bench",
    inputs: (random) => ({ x: trainable(random.normal([256, 4096])) }),
    run: (tape, { x }) => softmax(tape, x),
    reference: ({ x }) => softmaxReference(x),
    tolerance,
    samples: 0,
    bench: { shape: [256, 4096], bytes: 256 * 4096 * 8 },
  }),
];
