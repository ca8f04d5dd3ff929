import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { expectTensor } from "./shapes.js";

/** Elements that one partial sum covers, in both kernels. */
export const NORM_BLOCK = 4096;

export const squaredNormKernel = kernel({
  name: "squared_norm",
  writes: ["partials"],
  reads: ["x"],
  dims: ["n"],
  range: ({ n }) => Math.ceil(n / NORM_BLOCK),
  grid: ({ n }) => linearGrid(Math.ceil(n / NORM_BLOCK)),
});

/** Σ x² in blocks of 4096 elements: (blocks). The host adds them up in order, in float64. */
export function squaredNorm(tape: Tape, x: Tensor): Tensor {
  expectTensor("squaredNorm", "x", x);
  const partials = tape.empty([Math.ceil(x.size / NORM_BLOCK)]);
  tape.run(squaredNormKernel, { partials, x, n: x.size });
  return partials;
}
