import { add } from "../../src/ops/add.js";
import { type Nd, opCase, trainable } from "./case.js";

function reference({ a, b }: { a: Nd; b: Nd }): Nd {
  return a.map((value, i) => value + b.flat(i));
}

const sizes = [1, 3, 4, 17, 257].map((n) =>
  opCase({
    name: `${n} values`,
    inputs: (random) => ({ a: trainable(random.normal([n])), b: trainable(random.normal([n])) }),
    run: (tape, { a, b }) => add(tape, a, b),
    reference,
  }),
);

export const addCases = [
  ...sizes,
  opCase({
    name: "a tensor with itself",
    inputs: (random) => ({ a: trainable(random.normal([2, 5])) }),
    run: (tape, { a }) => add(tape, a, a),
    reference: ({ a }) => a.map((value) => 2 * value),
  }),
  opCase({
    name: "bench",
    inputs: (random) => ({
      a: trainable(random.normal([512, 1024])),
      b: trainable(random.normal([512, 1024])),
    }),
    run: (tape, { a, b }) => add(tape, a, b),
    reference,
    samples: 0,
    bench: { shape: [512, 1024], bytes: 512 * 1024 * 12 },
  }),
];
