import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { accumulateKernel } from "./add.js";

/** The same numbers under another shape of the same size; nothing is copied, its gradient neither. */
export function view(tape: Tape, x: Tensor, shape: readonly number[]): Tensor {
  const out = x.reshape(shape);
  return tape.record(out, [x], () => passOn(tape, x, tape.grad(out)));
}

/** Adds to x's gradient one that is complete and no longer read: where x has none, it goes on with its memory. */
export function passOn(tape: Tape, x: Tensor, dout: Tensor): void {
  if (!x.grad) x.grad = dout.reshape(x.shape);
  else tape.run(accumulateKernel, { dx: x.grad, dout, n: x.size, scale: 1 });
}
