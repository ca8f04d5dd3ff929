import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { expectTensor } from "./shapes.js";
import { passOn } from "./view.js";

export const geluKernel = kernel({
  name: "gelu",
  writes: ["out"],
  reads: ["x"],
  dims: ["n", "erf"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

export const geluBackwardKernel = kernel({
  name: "gelu_backward",
  writes: ["x"],
  reads: ["dout"],
  dims: ["n", "erf"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

/**
 * x · Φ(x) (Hendrycks and Gimpel 2016): exact with `erf`, else by tanh as GPT-2 has it. Its backward writes the
 * gradient over x, which the backward of nothing that came before may read.
 */
export function gelu(tape: Tape, x: Tensor, form: "tanh" | "erf"): Tensor {
  expectTensor("gelu", "x", x);
  if (form !== "tanh" && form !== "erf")
    throw new RangeError(`gelu: form must be 'tanh' or 'erf', got '${form}'`);
  const dims = { n: x.size, erf: form === "erf" ? 1 : 0 };
  const out = tape.empty(x.shape);
  tape.run(geluKernel, { out, x, ...dims });
  return tape.record(out, [x], () => {
    tape.run(geluBackwardKernel, { x, dout: tape.grad(out), ...dims });
    passOn(tape, x, x);
  });
}
