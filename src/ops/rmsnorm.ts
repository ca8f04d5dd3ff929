import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix, expectShape } from "./shapes.js";

export const rmsnormKernel = kernel({
  name: "rmsnorm",
  writes: ["out", "rstd"],
  reads: ["x", "weight"],
  dims: ["rows", "cols"],
  scalars: ["eps"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

export const rmsnormBackwardKernel = kernel({
  name: "rmsnorm_backward",
  writes: ["dx"],
  reads: ["dout", "x", "weight", "rstd"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

export const rmsnormBackwardWeightKernel = kernel({
  name: "rmsnorm_backward_weight",
  writes: ["dweight"],
  reads: ["dout", "x", "rstd"],
  dims: ["rows", "cols"],
  range: ({ cols }) => cols,
  grid: ({ cols }) => linearGrid(Math.ceil(cols / 64)),
});

/** x / √(mean(x²) + eps) · weight over the last dimension (Zhang and Sennrich 2019); weight (cols). */
export function rmsnorm(tape: Tape, x: Tensor, weight: Tensor, eps: number): Tensor {
  const { rows, cols } = asMatrix("rmsnorm", "x", x);
  expectShape("rmsnorm", "weight", weight, [cols]);
  const out = tape.empty(x.shape);
  const rstd = tape.empty([rows]);
  tape.run(rmsnormKernel, { out, rstd, x, weight, rows, cols, eps });
  return tape.record(out, [x, weight], () => {
    const dout = tape.grad(out);
    if (x.requiresGrad) {
      tape.run(rmsnormBackwardKernel, { dx: tape.grad(x), dout, x, weight, rstd, rows, cols });
    }
    if (weight.requiresGrad) {
      tape.run(rmsnormBackwardWeightKernel, { dweight: tape.grad(weight), dout, x, rstd, rows, cols });
    }
  });
}
