import { columns } from "../../src/ops/columns.js";
import { slice } from "../../src/ops/slice.js";
import { ids, type OpCase, opCase, trainable } from "./case.js";

function columnsCase(rows: readonly number[], stride: number, index: readonly number[]): OpCase {
  return opCase({
    name: `columns ${index.join(", ")} of (${rows.join(", ")}, ${stride})`,
    inputs: (random) => ({
      before: trainable(random.normal([...rows, stride])),
      x: trainable(random.normal([...rows, index.length])),
      index: ids(index),
    }),
    // The op writes in place, so it gets a copy.
    run: (tape, { before, x, index }) => columns(tape, slice(tape, before, 0, stride), x, index),
    reference: ({ before, x, index }) => {
      const out = before.matrix();
      const m = x.matrix();
      for (let r = 0; r < m.rows; r++) {
        for (let c = 0; c < m.cols; c++) out.set(m.at(r, c), r, index.at(c));
      }
      return out.as(before.shape);
    },
  });
}

export const columnsCases = [
  columnsCase([1], 1, [0]),
  columnsCase([5], 7, [6]),
  columnsCase([3], 6, [4, 0, 5]),
  columnsCase([2, 3], 5, [0, 1, 2, 3, 4]),
  columnsCase([33], 9, [2, 7]),
];
