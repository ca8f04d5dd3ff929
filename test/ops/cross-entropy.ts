import { crossEntropy } from "../../src/ops/cross-entropy.js";
import { slice } from "../../src/ops/slice.js";
import type { Tape } from "../../src/tape.js";
import type { Tensor } from "../../src/tensor.js";
import { type CaseOptions, frozen, ids, Nd, type OpCase, opCase, trainable } from "./case.js";

/** ln Σ e^x of row r. */
export function logSumExp(x: Nd, r: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (let c = 0; c < x.cols; c++) largest = Math.max(largest, x.at(r, c));
  let sum = 0;
  for (let c = 0; c < x.cols; c++) sum += Math.exp(x.at(r, c) - largest);
  return largest + Math.log(sum);
}

function reference({ logits, targets }: Record<"logits" | "targets" | "weights", Nd>): Nd {
  return new Nd([logits.rows]).map((_, r) => logSumExp(logits, r) - logits.at(r, targets.at(r)));
}

/** The op writes over the logits, so it gets a copy. */
function run(tape: Tape, { logits, targets, weights }: Record<"logits" | "targets" | "weights", Tensor>) {
  return crossEntropy(tape, slice(tape, logits, 0, logits.shape[1] ?? 0), targets, { weights });
}

function crossEntropyCase(rows: number, cols: number, scale = 1, extra: CaseOptions = {}): OpCase {
  return opCase({
    name: `(${rows}, ${cols})${scale === 1 ? "" : `, logits of ${scale}`}`,
    inputs: (random) => ({
      logits: trainable(random.normal([rows, cols], scale)),
      targets: ids(random.integers(rows, cols)),
      // Every third row is left out, and one weight is negative (unlikelihood).
      weights: frozen(random.normal([rows]).map((w, r) => (r % 3 === 2 ? 0 : r === 1 ? -0.5 : w))),
    }),
    run,
    reference,
    weights: { of: "out", from: "weights" },
    ...extra,
  });
}

const nonFinite = {
  "NaN in the logits": [1, 2, Number.NaN, 3, 4],
  "Infinity in the logits": [1, 2, Number.POSITIVE_INFINITY, 3, 4],
  "-Infinity in a logit that is not the target": [1, 2, Number.NEGATIVE_INFINITY, 3, 4],
  "-Infinity in the target's logit": [1, Number.NEGATIVE_INFINITY, 2, 3, 4],
};

export const crossEntropyCases = [
  ...(
    [
      [1, 1],
      [1, 2],
      [3, 5],
      [7, 13],
      [4, 64],
      [65, 7],
      [3, 257],
    ] as const
  ).map(([rows, cols]) => crossEntropyCase(rows, cols)),
  crossEntropyCase(5, 9, 1e4, { step: 1e-4 }),
  opCase({
    name: "a target that is all but certain",
    inputs: () => ({
      logits: trainable(new Nd([2, 3], [16, 0, 0, 0, 12, 0])),
      targets: ids([0, 1]),
      weights: frozen(new Nd([2], [1, 2])),
    }),
    run,
    reference,
    weights: { of: "out", from: "weights" },
    // Both are what is left of 1, whose last place is 1.2e-7.
    tolerance: {
      forward: { relative: 1e-5, absolute: 0, floor: 1.2e-7 },
      gradient: { relative: 1e-5, absolute: 0, floor: 2.4e-7 },
    },
  }),
  opCase({
    name: "without weights, which leaves the logits alone",
    inputs: (random) => ({
      logits: frozen(random.normal([3, 7])),
      targets: ids([6, 0, 3]),
      weights: frozen(new Nd([3])),
    }),
    run: (tape, { logits, targets }) => crossEntropy(tape, logits, targets),
    reference,
  }),
  ...Object.entries(nonFinite).map(([name, row]) =>
    opCase({
      name,
      inputs: () => ({
        logits: trainable(new Nd([1, 5], row)),
        targets: ids([1]),
        weights: frozen(new Nd([1], [1])),
      }),
      run,
      reference,
      samples: 0,
      wasmOnly: true,
    }),
  ),
  crossEntropyCase(128, 8192, 1, { samples: 0, bench: { shape: [128, 8192], bytes: 128 * 8192 * 16 } }),
];
