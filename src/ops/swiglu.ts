import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { expectShape, expectTensor } from "./shapes.js";

export const swigluKernel = kernel({
  name: "swiglu",
  writes: ["out"],
  reads: ["gate", "up"],
  dims: ["n"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

export const swigluBackwardKernel = kernel({
  name: "swiglu_backward",
  writes: ["dgate", "dup"],
  reads: ["dout", "gate", "up"],
  dims: ["n"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

/** silu(gate) · up (Shazeer 2020), tensors of one shape. */
export function swiglu(tape: Tape, gate: Tensor, up: Tensor): Tensor {
  expectTensor("swiglu", "gate", gate);
  expectShape("swiglu", "up", up, gate.shape);
  const n = gate.size;
  const out = tape.empty(gate.shape);
  tape.run(swigluKernel, { out, gate, up, n });
  return tape.record(out, [gate, up], () => {
    const [dgate, dup] = [gate, up].map((x) => (x.requiresGrad ? tape.grad(x) : tape.filled(x.shape, 0)));
    if (dgate && dup) tape.run(swigluBackwardKernel, { dgate, dup, dout: tape.grad(out), gate, up, n });
  });
}
