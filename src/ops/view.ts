import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { accumulateKernel } from "./add.js";

/** The same numbers under another shape of the same size; nothing is copied, its gradient neither. */
export function view(tape: Tape, x: Tensor, shape: readonly number[]): Tensor {
  const out = x.reshape(shape);
  return tape.record(out, [x], () => {
    const dout = tape.grad(out);
    // The view's gradient is complete and no longer read, so x may go on with its memory.
    if (!x.grad) x.grad = dout.reshape(x.shape);
    else tape.run(accumulateKernel, { dx: x.grad, dout, n: x.size, scale: 1 });
  });
}
