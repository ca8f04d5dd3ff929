import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix, expectShape } from "./shapes.js";

export const layernormKernel = kernel({
  name: "layernorm",
  writes: ["out", "mean", "rstd"],
  reads: ["x", "weight", "bias"],
  dims: ["rows", "cols"],
  scalars: ["eps"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

export const layernormBackwardKernel = kernel({
  name: "layernorm_backward",
  writes: ["dx"],
  reads: ["dout", "x", "weight", "mean", "rstd"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

export const layernormBackwardWeightKernel = kernel({
  name: "layernorm_backward_weight",
  writes: ["dweight", "dbias"],
  reads: ["dout", "x", "mean", "rstd"],
  dims: ["rows", "cols"],
  range: ({ cols }) => cols,
  grid: ({ cols }) => linearGrid(Math.ceil(cols / 64)),
});

/** (x - mean) / √(variance + eps) · weight + bias over the last dimension (Ba et al. 2016); weight, bias (cols). */
export function layernorm(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor, eps: number): Tensor {
  const { rows, cols } = asMatrix("layernorm", "x", x);
  expectShape("layernorm", "weight", weight, [cols]);
  expectShape("layernorm", "bias", bias, [cols]);
  const out = tape.empty(x.shape);
  const mean = tape.empty([rows]);
  const rstd = tape.empty([rows]);
  tape.run(layernormKernel, { out, mean, rstd, x, weight, bias, rows, cols, eps });
  return tape.record(out, [x, weight, bias], () => {
    const dout = tape.grad(out);
    if (x.requiresGrad) {
      tape.run(layernormBackwardKernel, { dx: tape.grad(x), dout, x, weight, mean, rstd, rows, cols });
    }
    if (weight.requiresGrad || bias.requiresGrad) {
      const [dweight, dbias] = [weight, bias].map((p) =>
        p.requiresGrad ? tape.grad(p) : tape.filled(p.shape, 0),
      );
      if (dweight && dbias) {
        tape.run(layernormBackwardWeightKernel, { dweight, dbias, dout, x, mean, rstd, rows, cols });
      }
    }
  });
}
