import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix, expectShape, withLast } from "./shapes.js";

export const columnsKernel = kernel({
  name: "columns",
  writes: ["out"],
  reads: ["x", "index"],
  dims: ["rows", "cols", "stride"],
  range: ({ rows }) => rows,
  grid: ({ rows, cols }) => linearGrid(Math.ceil((rows * cols) / 256)),
});

export const columnsBackwardKernel = kernel({
  name: "columns_backward",
  writes: ["dx", "dout"],
  reads: ["index"],
  dims: ["rows", "cols", "stride"],
  range: ({ rows }) => rows,
  grid: ({ rows, cols }) => linearGrid(Math.ceil((rows * cols) / 256)),
});

/**
 * Overwrites columns `index` (u32, cols, each once) of `out` (…, stride) with x (…, cols), and returns `out`.
 * What stood there gets no gradient.
 */
export function columns(tape: Tape, out: Tensor, x: Tensor, index: Tensor): Tensor {
  const { rows, cols: stride } = asMatrix("columns", "out", out);
  const cols = index.size;
  expectShape("columns", "index", index, [cols], "u32");
  expectShape("columns", "x", x, withLast(out.shape, cols));
  tape.run(columnsKernel, { out, x, index, rows, cols, stride });
  return tape.record(out, [x, out], () => {
    const dx = x.requiresGrad ? tape.grad(x) : tape.filled(x.shape, 0);
    tape.run(columnsBackwardKernel, { dx, dout: tape.grad(out), index, rows, cols, stride });
  });
}
