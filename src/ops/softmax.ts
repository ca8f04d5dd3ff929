import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix } from "./shapes.js";

export const softmaxKernel = kernel({
  name: "softmax",
  writes: ["out"],
  reads: ["x"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

export const softmaxBackwardKernel = kernel({
  name: "softmax_backward",
  writes: ["dx"],
  reads: ["dout", "out"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

/** Softmax over the last dimension. */
export function softmax(tape: Tape, x: Tensor): Tensor {
  const dims = asMatrix("softmax", "x", x);
  const out = tape.empty(x.shape);
  tape.run(softmaxKernel, { out, x, ...dims });
  return tape.record(out, [x], () => {
    tape.run(softmaxBackwardKernel, { dx: tape.grad(x), dout: tape.grad(out), out, ...dims });
  });
}
