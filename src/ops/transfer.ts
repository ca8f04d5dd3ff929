import type { Backend } from "../backend.js";
import { BackendError } from "../errors.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { passOn } from "./view.js";

/**
 * The same numbers in the memory of another backend, whose kernels see no other; the gradient comes back. Nothing is
 * copied where they are there.
 * @throws BackendError where the host reaches one of the memories only by waiting
 */
export function transfer(tape: Tape, x: Tensor, to: Backend): Tensor {
  if (x.backend === to) return x;
  const out = tape.on(to, () => tape.empty(x.shape, x.dtype));
  move(out, x);
  return tape.on(x.backend, () =>
    tape.record(out, [x], () => {
      const dout = tape.empty(x.shape);
      move(dout, tape.grad(out));
      passOn(tape, x, dout);
    }),
  );
}

function move(to: Tensor, from: Tensor): void {
  const bytes = from.backend.view?.(from);
  if (!bytes) throw new BackendError(`transfer: the memory of ${from.backend.description} can't be viewed`);
  to.backend.write(to, bytes);
}
