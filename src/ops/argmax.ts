import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix } from "./shapes.js";

export const argmaxKernel = kernel({
  name: "argmax",
  writes: ["out"],
  reads: ["x"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

/** The index of the largest of every row, the first of equals: u32 (rows). */
export function argmax(tape: Tape, x: Tensor): Tensor {
  const { rows, cols } = asMatrix("argmax", "x", x);
  const out = tape.empty([rows], "u32");
  tape.run(argmaxKernel, { out, x, rows, cols });
  return out;
}
