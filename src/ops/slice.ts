import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix, expectInteger, withLast } from "./shapes.js";

export const sliceKernel = kernel({
  name: "slice",
  writes: ["out"],
  reads: ["x"],
  dims: ["rows", "cols", "stride", "offset"],
  range: ({ rows }) => rows,
  grid: ({ rows, cols }) => linearGrid(Math.ceil((rows * cols) / 256)),
});

export const sliceBackwardKernel = kernel({
  name: "slice_backward",
  writes: ["dx"],
  reads: ["dout"],
  dims: ["rows", "cols", "stride", "offset"],
  range: ({ rows }) => rows,
  grid: ({ rows, cols }) => linearGrid(Math.ceil((rows * cols) / 256)),
});

/** Columns `offset` to `offset + cols` of every row: q, k or v out of a fused projection. */
export function slice(tape: Tape, x: Tensor, offset: number, cols: number): Tensor {
  const { rows, cols: stride } = asMatrix("slice", "x", x);
  expectInteger("slice", "offset", offset, 0, stride - 1);
  expectInteger("slice", "cols", cols, 1, stride - offset);
  const out = tape.empty(withLast(x.shape, cols));
  const dims = { rows, cols, stride, offset };
  tape.run(sliceKernel, { out, x, ...dims });
  return tape.record(out, [x], () => {
    tape.run(sliceBackwardKernel, { dx: tape.grad(x), dout: tape.grad(out), ...dims });
  });
}
