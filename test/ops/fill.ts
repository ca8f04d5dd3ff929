import { Nd, opCase } from "./case.js";

export const fillCases = [1, 3, 4, 7, 257, 1025].map((n) =>
  opCase({
    name: `${n} values`,
    inputs: () => ({}),
    run: (tape) => tape.filled([n], -0.75),
    reference: () => new Nd([n]).map(() => -0.75),
  }),
);
