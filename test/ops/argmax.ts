import { argmax } from "../../src/ops/argmax.js";
import { type CaseOptions, frozen, Nd, type OpCase, opCase, type Random } from "./case.js";

/** The first of the largest; NaN is never the largest. */
function reference(x: Nd): Nd {
  return new Nd([x.rows]).map((_, r) => {
    let best = 0;
    for (let c = 1; c < x.cols; c++) {
      if (x.at(r, c) > x.at(r, best) || (Number.isNaN(x.at(r, best)) && !Number.isNaN(x.at(r, c)))) best = c;
    }
    return best;
  });
}

function argmaxCase(name: string, values: (random: Random) => Nd, extra: CaseOptions = {}): OpCase {
  return opCase({
    name,
    inputs: (random) => ({ x: frozen(values(random)) }),
    run: (tape, { x }) => argmax(tape, x),
    reference: ({ x }) => reference(x),
    ...extra,
  });
}

const { NaN: nan, NEGATIVE_INFINITY: low, POSITIVE_INFINITY: high } = Number;

export const argmaxCases = [
  ...(
    [
      [1, 1],
      [3, 2],
      [5, 7],
      [65, 3],
      [2, 257],
      [3, 1031],
    ] as const
  ).map((shape) => argmaxCase(`(${shape.join(", ")})`, (random) => random.normal(shape))),
  argmaxCase("many equals", (random) => random.normal([9, 300]).map((x) => Math.round(x))),
  argmaxCase("all equal", () => new Nd([2, 70])),
  argmaxCase("values of -1e30", (random) => random.uniform([3, 70], -2e30, -1e30)),
  argmaxCase(
    "non-finite values",
    () =>
      new Nd(
        [5, 4],
        [nan, 1, 2, nan, low, low, low, low, 1, high, high, 2, 3, low, nan, 4, low, low, 0, nan],
      ),
    { wasmOnly: true },
  ),
  argmaxCase("bench", (random) => random.normal([16, 32768]), {
    bench: { shape: [16, 32768], bytes: 16 * 32768 * 4 },
  }),
];
