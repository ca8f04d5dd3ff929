import { dropout } from "../../src/ops/dropout.js";
import { frozen, Nd, opCase, trainable } from "./case.js";

const MASK = 2n ** 32n - 1n;

/** The mixing function in exact integers. */
function mix(value: bigint): bigint {
  let v = ((value ^ (value >> 16n)) * 0x21f0aaadn) & MASK;
  v = ((v ^ (v >> 15n)) * 0xd35a2d97n) & MASK;
  return v ^ (v >> 15n);
}

/** What element `i` is multiplied by. */
export function factor(i: number, rate: number, seed: number): number {
  const isDropped = Number(mix(mix(BigInt(i)) ^ BigInt(seed))) < Math.round(rate * 2 ** 32);
  return isDropped ? 0 : 1 / (1 - rate);
}

const reference = (rate: number, seed: number) => (x: Nd) =>
  x.map((value, i) => value * factor(i, rate, seed));

const sizes = [1, 3, 4, 17, 257].flatMap((n) =>
  [
    [0.1, 7],
    [0.5, 2 ** 32 - 1],
    [0.9, 2 ** 31],
  ].map(([rate = 0, seed = 0]) =>
    opCase({
      name: `${n} values at ${rate}`,
      inputs: (random) => ({ x: trainable(random.normal([n])) }),
      run: (tape, { x }) => dropout(tape, x, { rate, seed }),
      reference: ({ x }) => reference(rate, seed)(x),
    }),
  ),
);

export const dropoutCases = [
  ...sizes,
  opCase({
    name: "of nothing",
    inputs: (random) => ({ x: trainable(random.normal([3, 5])) }),
    run: (tape, { x }) => dropout(tape, x, { rate: 0, seed: 1 }),
    reference: ({ x }) => x.map((value) => value),
  }),
  opCase({
    name: "two layers of one input, two masks",
    inputs: (random) => ({ x: trainable(random.normal([4, 9])) }),
    run: (tape, { x }) => ({
      one: dropout(tape, x, { rate: 0.3, seed: 1 }),
      two: dropout(tape, x, { rate: 0.3, seed: 2 }),
    }),
    reference: ({ x }) => ({ one: reference(0.3, 1)(x), two: reference(0.3, 2)(x) }),
  }),
  opCase({
    name: "non-finite values",
    inputs: () => ({
      x: frozen(new Nd([40]).map((_, i) => [Number.NaN, Infinity, 1, -Infinity][i % 4] ?? 0)),
    }),
    run: (tape, { x }) => dropout(tape, x, { rate: 0.5, seed: 3 }),
    reference: ({ x }) => reference(0.5, 3)(x),
    wasmOnly: true,
  }),
  opCase({
    name: "bench",
    inputs: (random) => ({ x: trainable(random.normal([512, 1024])) }),
    run: (tape, { x }) => dropout(tape, x, { rate: 0.1, seed: 5 }),
    reference: ({ x }) => reference(0.1, 5)(x),
    samples: 0,
    bench: { shape: [512, 1024], bytes: 512 * 1024 * 8 },
  }),
];
