import { slice } from "../../src/ops/slice.js";
import { swiglu } from "../../src/ops/swiglu.js";
import type { Tape } from "../../src/tape.js";
import type { Tensor } from "../../src/tensor.js";
import { frozen, Nd, opCase, trainable } from "./case.js";

function reference({ gate, up }: { gate: Nd; up: Nd }): Nd {
  return gate.map((g, i) => (g / (1 + Math.exp(-g))) * up.flat(i));
}

/** Its backward writes over its operands, so it gets copies. */
function run(tape: Tape, { gate, up }: { gate: Tensor; up: Tensor }): Tensor {
  const copy = (x: Tensor) => slice(tape, x, 0, x.shape.at(-1) ?? 0);
  return swiglu(tape, copy(gate), copy(up));
}

const sizes = [1, 3, 4, 17, 257].map((n) =>
  opCase({
    name: `${n} values`,
    inputs: (random) => ({ gate: trainable(random.normal([n], 3)), up: trainable(random.normal([n])) }),
    run,
    reference,
  }),
);

export const swigluCases = [
  ...sizes,
  opCase({
    name: "gates from -100 to 100",
    inputs: (random) => ({
      gate: trainable(new Nd([41]).map((_, i) => 5 * i - 100)),
      up: trainable(random.normal([41])),
    }),
    run,
    reference,
    step: 1e-4,
  }),
  opCase({
    name: "gates of ±1e4 and ±1e30",
    inputs: (random) => ({
      gate: trainable(new Nd([4], [-1e30, -1e4, 1e4, 1e30])),
      up: trainable(random.normal([4])),
    }),
    run,
    reference,
    samples: 0,
  }),
  opCase({
    name: "only up is trained",
    inputs: (random) => ({ gate: frozen(random.normal([6])), up: trainable(random.normal([6])) }),
    run,
    reference,
  }),
  opCase({
    name: "non-finite values",
    // -Infinity · σ(-Infinity) is -Infinity · 0, which PyTorch's silu gives as NaN too.
    inputs: () => ({
      gate: frozen(new Nd([6], [Number.NaN, 1, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2, 0])),
      up: frozen(new Nd([6], [1, Number.NaN, 2, 3, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY])),
    }),
    run,
    reference,
    wasmOnly: true,
  }),
  opCase({
    name: "bench",
    inputs: (random) => ({
      gate: trainable(random.normal([512, 1024])),
      up: trainable(random.normal([512, 1024])),
    }),
    run,
    reference,
    samples: 0,
    bench: { shape: [512, 1024], bytes: 512 * 1024 * 28, backward: 3 },
  }),
];
