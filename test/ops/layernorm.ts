import { layernorm } from "../../src/ops/layernorm.js";
import { type CaseOptions, frozen, Nd, type OpCase, opCase, trainable } from "./case.js";

function reference({ x, weight, bias }: Record<"x" | "weight" | "bias", Nd>, eps: number): Nd {
  const m = x.matrix();
  const out = new Nd(m.shape);
  for (let r = 0; r < m.rows; r++) {
    let mean = 0;
    for (let c = 0; c < m.cols; c++) mean += m.at(r, c) / m.cols;
    let variance = 0;
    for (let c = 0; c < m.cols; c++) variance += (m.at(r, c) - mean) ** 2 / m.cols;
    const deviation = Math.sqrt(variance + eps);
    for (let c = 0; c < m.cols; c++) {
      out.set(((m.at(r, c) - mean) / deviation) * weight.at(c) + bias.at(c), r, c);
    }
  }
  return out.as(x.shape);
}

function layernormCase(shape: readonly number[], scale = 1, mean = 0, extra: CaseOptions = {}): OpCase {
  const cols = shape.at(-1) ?? 0;
  return opCase({
    name: `(${shape.join(", ")})${scale === 1 ? "" : ` of ${scale}`}${mean ? ` around ${mean}` : ""}`,
    inputs: (random) => ({
      x: trainable(random.normal(shape, scale).map((x) => x + mean)),
      weight: trainable(random.normal([cols])),
      bias: trainable(random.normal([cols])),
    }),
    run: (tape, { x, weight, bias }) => layernorm(tape, x, weight, bias, 1e-5),
    reference: (x) => reference(x, 1e-5),
    ...extra,
  });
}

/** Only some operands require a gradient: the others' must not be made. */
function partly(trained: "x" | "weight" | "bias"): OpCase {
  return opCase({
    name: `only ${trained} is trained`,
    inputs: (random) => {
      const make = (name: string, shape: number[]) =>
        (name === trained ? trainable : frozen)(random.normal(shape));
      return { x: make("x", [3, 5]), weight: make("weight", [5]), bias: make("bias", [5]) };
    },
    run: (tape, { x, weight, bias }) => layernorm(tape, x, weight, bias, 1e-5),
    reference: (x) => reference(x, 1e-5),
  });
}

const nonFinite = [Number.NaN, Number.POSITIVE_INFINITY].map((value) =>
  opCase({
    name: `${value} in one row`,
    inputs: (random) => ({
      x: frozen(random.normal([3, 7]).map((x, i) => (i === 8 ? value : x))),
      weight: frozen(random.normal([7])),
      bias: frozen(random.normal([7])),
    }),
    run: (tape, { x, weight, bias }) => layernorm(tape, x, weight, bias, 1e-5),
    reference: (x) => reference(x, 1e-5),
    wasmOnly: true,
  }),
);

export const layernormCases = [
  ...[
    [3, 1],
    [2, 3],
    [5, 4],
    [2, 3, 7],
    [7, 13],
    [65, 5],
    [2, 257],
  ].map((shape) => layernormCase(shape)),
  layernormCase([3, 9], 1e18),
  layernormCase([3, 9], 1e-3),
  // Deviations of 1 on 1e3 have lost ten bits before the kernel sees them, and the mean's rounding is theirs.
  layernormCase([3, 9], 1, 1e3, {
    step: 1e-5,
    tolerance: { forward: { relative: 1e-4, absolute: 1e-4 }, gradient: { relative: 2e-4, absolute: 2e-4 } },
  }),
  layernormCase([3, 9], 0, 0, { step: 1e-8 }),
  partly("x"),
  partly("weight"),
  partly("bias"),
  ...nonFinite,
  layernormCase([512, 1024], 1, 0, {
    samples: 0,
    bench: { shape: [512, 1024], bytes: 512 * 1024 * 8, backward: 4 },
  }),
];
