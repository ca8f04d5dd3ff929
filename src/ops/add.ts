import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { expectShape, expectTensor } from "./shapes.js";

export const addKernel = kernel({
  name: "add",
  writes: ["out"],
  reads: ["a", "b"],
  dims: ["n"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

/** dx += scale · dout: what every op does that hands its gradient on. */
export const accumulateKernel = kernel({
  name: "accumulate",
  writes: ["dx"],
  reads: ["dout"],
  dims: ["n"],
  scalars: ["scale"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

/** a + b, tensors of one shape. */
export function add(tape: Tape, a: Tensor, b: Tensor): Tensor {
  expectTensor("add", "a", a);
  expectShape("add", "b", b, a.shape);
  const n = a.size;
  const out = tape.empty(a.shape);
  tape.run(addKernel, { out, a, b, n });
  return tape.record(out, [a, b], () => {
    const dout = tape.grad(out);
    for (const x of [a, b]) {
      if (x.requiresGrad) tape.run(accumulateKernel, { dx: tape.grad(x), dout, n, scale: 1 });
    }
  });
}
