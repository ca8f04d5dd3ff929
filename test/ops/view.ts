import { add } from "../../src/ops/add.js";
import { view } from "../../src/ops/view.js";
import { opCase, trainable } from "./case.js";

export const viewCases = [
  opCase({
    name: "(2, 6) as (3, 4)",
    inputs: (random) => ({ x: trainable(random.normal([2, 6])) }),
    run: (tape, { x }) => view(tape, x, [3, 4]),
    reference: ({ x }) => x.as([3, 4]),
  }),
  opCase({
    name: "a result that is used as it is and under a view",
    inputs: (random) => ({ x: trainable(random.normal([2, 6])), y: trainable(random.normal([2, 6])) }),
    run: (tape, { x, y }) => {
      const sum = add(tape, x, y);
      return add(tape, view(tape, sum, [12]), view(tape, add(tape, sum, x), [12]));
    },
    reference: ({ x, y }) => x.map((value, i) => 3 * value + 2 * y.flat(i)).as([12]),
  }),
];
