import { slice } from "../../src/ops/slice.js";
import { swigluFused } from "../../src/ops/swiglu-fused.js";
import type { Tape } from "../../src/tape.js";
import type { Tensor } from "../../src/tensor.js";
import { frozen, Nd, opCase, trainable } from "./case.js";

function reference({ x }: { x: Nd }): Nd {
  const [rows = 0, width = 0] = x.shape;
  const cols = width / 2;
  return new Nd([rows, cols]).map((_, i) => {
    const [row, col] = [Math.floor(i / cols), i % cols];
    const gate = x.at(row, col);
    return (gate / (1 + Math.exp(-gate))) * x.at(row, cols + col);
  });
}

/** Its backward writes over its operand, so it gets a copy. */
function run(tape: Tape, { x }: { x: Tensor }): Tensor {
  return swigluFused(tape, slice(tape, x, 0, x.shape.at(-1) ?? 0));
}

const sizes = [
  [1, 2],
  [3, 2],
  [1, 514],
  [5, 14],
  [17, 40],
].map((shape) =>
  opCase({
    name: `(${shape.join(", ")})`,
    inputs: (random) => ({ x: trainable(random.normal(shape, 3)) }),
    run,
    reference,
  }),
);

export const swigluFusedCases = [
  ...sizes,
  opCase({
    name: "gates of ±1e4 and ±1e30",
    inputs: () => ({ x: trainable(new Nd([2, 4], [-1e30, -1e4, 1, 2, 1e4, 1e30, 0.5, -1])) }),
    run,
    reference,
    samples: 0,
  }),
  opCase({
    name: "non-finite values",
    inputs: () => ({
      x: frozen(
        new Nd(
          [2, 4],
          [Number.NaN, 1, 1, Number.NaN, Number.POSITIVE_INFINITY, 2, 2, Number.NEGATIVE_INFINITY],
        ),
      ),
    }),
    run,
    reference,
    wasmOnly: true,
  }),
  opCase({
    name: "bench",
    inputs: (random) => ({ x: trainable(random.normal([512, 2048])) }),
    run,
    reference,
    samples: 0,
    bench: { shape: [512, 2048], bytes: 512 * 1024 * 28, backward: 3 },
  }),
];
