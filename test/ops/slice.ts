import { slice } from "../../src/ops/slice.js";
import { Nd, opCase, trainable } from "./case.js";

function reference(x: Nd, offset: number, cols: number): Nd {
  const m = x.matrix();
  const out = new Nd([m.rows, cols]);
  for (let r = 0; r < m.rows; r++) {
    for (let c = 0; c < cols; c++) out.set(m.at(r, offset + c), r, c);
  }
  return out.as([...x.shape.slice(0, -1), cols]);
}

const shapes = [
  { shape: [1, 1], offset: 0, cols: 1 },
  { shape: [3, 7], offset: 2, cols: 3 },
  { shape: [5, 9], offset: 8, cols: 1 },
  { shape: [2, 3, 12], offset: 4, cols: 8 },
  { shape: [4, 131], offset: 1, cols: 130 },
] as const;

export const sliceCases = [
  ...shapes.map(({ shape, offset, cols }) =>
    opCase({
      name: `columns ${offset} to ${offset + cols} of (${shape.join(", ")})`,
      inputs: (random) => ({ x: trainable(random.normal(shape)) }),
      run: (tape, { x }) => slice(tape, x, offset, cols),
      reference: ({ x }) => reference(x, offset, cols),
    }),
  ),
  opCase({
    name: "three overlapping slices of one tensor",
    inputs: (random) => ({ x: trainable(random.normal([4, 11])) }),
    run: (tape, { x }) => ({ q: slice(tape, x, 0, 5), k: slice(tape, x, 4, 3), v: slice(tape, x, 6, 5) }),
    reference: ({ x }) => ({ q: reference(x, 0, 5), k: reference(x, 4, 3), v: reference(x, 6, 5) }),
  }),
];
