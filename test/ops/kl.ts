import { kl } from "../../src/ops/kl.js";
import { slice } from "../../src/ops/slice.js";
import { type CaseOptions, frozen, Nd, type OpCase, opCase, type Random, trainable } from "./case.js";
import { logSumExp } from "./cross-entropy.js";

type Direction = "forward" | "reverse";

function reference({ logits, ref }: { logits: Nd; ref: Nd }, direction: Direction): Nd {
  const [from, to] = direction === "forward" ? [logits, ref] : [ref, logits];
  return new Nd([logits.rows]).map((_, r) => {
    const [lseFrom, lseTo] = [logSumExp(from, r), logSumExp(to, r)];
    let sum = 0;
    for (let c = 0; c < logits.cols; c++) {
      const logP = from.at(r, c) - lseFrom;
      sum += Math.exp(logP) * (logP - (to.at(r, c) - lseTo));
    }
    return sum;
  });
}

function klCase(
  name: string,
  direction: Direction,
  values: (random: Random) => { logits: Nd; ref: Nd },
  extra: CaseOptions = {},
): OpCase {
  return opCase({
    name: `${direction}, ${name}`,
    inputs: (random) => {
      const { logits, ref } = values(random);
      const weights = random.normal([logits.rows]).map((w, r) => (r % 3 === 2 ? 0 : w));
      return { logits: trainable(logits), ref: frozen(ref), weights: frozen(weights) };
    },
    // The op writes over the logits, so it gets a copy.
    run: (tape, { logits, ref, weights }) =>
      kl(tape, slice(tape, logits, 0, logits.shape[1] ?? 0), ref, { weights, direction }),
    reference: (x) => reference(x, direction),
    weights: { of: "out", from: "weights" },
    ...extra,
  });
}

/** A divergence is the sum of terms of both signs, p times a difference of logarithms near 1. */
const CANCELS = { relative: 2e-6, absolute: 2e-6, floor: 5e-7 };

const shapes = [
  [1, 1],
  [1, 2],
  [3, 5],
  [7, 13],
  [65, 4],
  [3, 257],
] as const;

/** Logits and a reference that differs from them by `apart`. */
function near(random: Random, shape: readonly number[], apart: number, scale = 2, mean = 0) {
  const logits = random.normal(shape, scale).map((x) => x + mean);
  const noise = random.normal(shape, apart);
  return { logits, ref: logits.map((x, i) => x + noise.flat(i)) };
}

export const klCases = (["forward", "reverse"] as const).flatMap((direction) => [
  ...shapes.map((shape) =>
    klCase(
      `(${shape.join(", ")})`,
      direction,
      (random) => ({ logits: random.normal(shape, 2), ref: random.normal(shape, 2) }),
      { tolerance: { forward: CANCELS, gradient: { ...CANCELS, relative: 1e-5, absolute: 1e-5 } } },
    ),
  ),
  opCase({
    name: `${direction}, without weights, which leaves the logits alone`,
    inputs: (random) => ({
      logits: frozen(random.normal([3, 7], 2)),
      ref: frozen(random.normal([3, 7], 2)),
    }),
    run: (tape, { logits, ref }) => kl(tape, logits, ref, { direction }),
    reference: (x) => reference(x, direction),
    tolerance: { forward: CANCELS },
  }),
  // Where training starts: a divergence of 5e-5.
  klCase("distributions close together", direction, (random) => near(random, [3, 33], 1e-2), {
    tolerance: { forward: CANCELS, gradient: { ...CANCELS, relative: 1e-5, absolute: 1e-5 } },
  }),
  klCase("logits around 1000", direction, (random) => near(random, [3, 33], 1, 2, 1000), { step: 1e-3 }),
  klCase("logits of ±1e4", direction, (random) => near(random, [4, 9], 1e4, 1e4), { samples: 0 }),
  klCase(
    "bench",
    direction,
    (random) => ({ logits: random.normal([128, 8192]), ref: random.normal([128, 8192]) }),
    { samples: 0, bench: { shape: [128, 8192, direction === "reverse" ? 1 : 0], bytes: 128 * 8192 * 20 } },
  ),
]);
