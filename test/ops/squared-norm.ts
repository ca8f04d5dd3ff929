import { NORM_BLOCK, squaredNorm } from "../../src/ops/squared-norm.js";
import { type CaseOptions, frozen, Nd, type OpCase, opCase, type Random } from "./case.js";

function reference(x: Nd): Nd {
  const out = new Nd([Math.ceil(x.size / NORM_BLOCK)]);
  for (let i = 0; i < x.size; i++) {
    const block = Math.floor(i / NORM_BLOCK);
    out.set(out.at(block) + x.flat(i) ** 2, block);
  }
  return out;
}

function squaredNormCase(name: string, values: (random: Random) => Nd, extra: CaseOptions = {}): OpCase {
  return opCase({
    name,
    inputs: (random) => ({ x: frozen(values(random)) }),
    run: (tape, { x }) => squaredNorm(tape, x),
    reference: ({ x }) => reference(x),
    ...extra,
  });
}

export const squaredNormCases = [
  ...[1, 3, 4, 17, NORM_BLOCK - 1, NORM_BLOCK, NORM_BLOCK + 1, 3 * NORM_BLOCK + 5].map((n) =>
    squaredNormCase(`${n} values`, (random) => random.normal([n])),
  ),
  squaredNormCase("values of 1e18", (random) => random.normal([9], 1e18)),
  squaredNormCase("NaN", (random) => random.normal([9]).map((x, i) => (i === 8 ? Number.NaN : x)), {
    wasmOnly: true,
  }),
  squaredNormCase("Infinity", (random) => random.normal([9]).map((x, i) => (i === 3 ? -Infinity : x)), {
    wasmOnly: true,
  }),
  squaredNormCase("bench", (random) => random.normal([1 << 20]), {
    bench: { shape: [1 << 20], bytes: 4 << 20 },
  }),
];
