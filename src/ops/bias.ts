import { kernel, linearGrid } from "../kernel.js";

/** dbias[c] += Σ dout[…, c]. The bias itself is added in the matmul's last step. */
export const biasBackwardKernel = kernel({
  name: "bias_backward",
  writes: ["dbias"],
  reads: ["dout"],
  dims: ["rows", "cols"],
  range: ({ cols }) => cols,
  grid: ({ cols }) => linearGrid(Math.ceil(cols / 64)),
});
