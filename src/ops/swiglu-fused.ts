import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import { formatShape, type Tensor } from "../tensor.js";
import { asMatrix, withLast } from "./shapes.js";
import { passOn } from "./view.js";

export const swigluFusedKernel = kernel({
  name: "swiglu_fused",
  writes: ["out"],
  reads: ["x"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows, cols }) => linearGrid(Math.ceil((rows * cols) / 256)),
});

export const swigluFusedBackwardKernel = kernel({
  name: "swiglu_fused_backward",
  writes: ["x"],
  reads: ["dout"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows, cols }) => linearGrid(Math.ceil((rows * cols) / 256)),
});

/**
 * `swiglu` of what one matrix makes of gate and up: x (…, 2 · cols), gate first, gives (…, cols). Its backward writes
 * the gradient over x, which the backward of nothing that came before may read.
 * @throws RangeError where the last dimension is odd
 */
export function swigluFused(tape: Tape, x: Tensor): Tensor {
  const { rows, cols: width } = asMatrix("swiglu", "x", x);
  if (width % 2 !== 0)
    throw new RangeError(`swiglu: the last dimension of x ${formatShape(x.shape)} must be even`);
  const cols = width / 2;
  const out = tape.empty(withLast(x.shape, cols));
  tape.run(swigluFusedKernel, { out, x, rows, cols });
  return tape.record(out, [x], () => {
    tape.run(swigluFusedBackwardKernel, { x, dout: tape.grad(out), rows, cols });
    passOn(tape, x, x);
  });
}
