import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix, expectShape } from "./shapes.js";

export const argmaxKernel = kernel({
  name: "argmax",
  writes: ["out"],
  reads: ["x"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

/**
 * The index of the largest of every row, the first of equals: u32 (rows).
 * @param into where it goes instead of into a tensor of its own
 */
export function argmax(tape: Tape, x: Tensor, into?: Tensor): Tensor {
  const { rows, cols } = asMatrix("argmax", "x", x);
  if (into) expectShape("argmax", "into", into, [rows], "u32");
  const out = into ?? tape.empty([rows], "u32");
  tape.run(argmaxKernel, { out, x, rows, cols });
  return out;
}
