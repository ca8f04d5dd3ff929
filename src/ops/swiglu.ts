import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { expectShape, expectTensor } from "./shapes.js";
import { passOn } from "./view.js";

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
  writes: ["gate", "up"],
  reads: ["dout"],
  dims: ["n"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

/**
 * silu(gate) · up (Shazeer 2020), tensors of one shape. Its backward writes the gradients over gate and up, which
 * the backward of nothing that came before may read.
 */
export function swiglu(tape: Tape, gate: Tensor, up: Tensor): Tensor {
  expectTensor("swiglu", "gate", gate);
  expectShape("swiglu", "up", up, gate.shape);
  const n = gate.size;
  const out = tape.empty(gate.shape);
  tape.run(swigluKernel, { out, gate, up, n });
  return tape.record(out, [gate, up], () => {
    tape.run(swigluBackwardKernel, { gate, up, dout: tape.grad(out), n });
    for (const x of [gate, up]) if (x.requiresGrad) passOn(tape, x, x);
  });
}
