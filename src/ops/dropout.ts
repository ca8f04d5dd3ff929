import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { expectInteger, expectTensor } from "./shapes.js";

export const dropoutKernel = kernel({
  name: "dropout",
  writes: ["out"],
  reads: ["x"],
  dims: ["n", "seed", "threshold"],
  scalars: ["scale"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

export const dropoutBackwardKernel = kernel({
  name: "dropout_backward",
  writes: ["dx"],
  reads: ["dout"],
  dims: ["n", "seed", "threshold"],
  scalars: ["scale"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

export interface DropoutOptions {
  /** Share of the elements that become 0, in [0, 1). */
  readonly rate: number;
  /** In [0, 2^32): elements with the same index are dropped under the same seed, and no mask is stored. */
  readonly seed: number;
}

/**
 * Each element 0 with the probability `rate`, else divided by 1 - rate (Srivastava et al. 2014). A NaN stays one
 * where it is dropped.
 * @throws RangeError for a rate or a seed out of its range
 */
export function dropout(tape: Tape, x: Tensor, { rate, seed }: DropoutOptions): Tensor {
  expectTensor("dropout", "x", x);
  expectInteger("dropout", "seed", seed, 0, 2 ** 32 - 1);
  if (!(rate >= 0 && rate < 1)) throw new RangeError(`dropout: rate must be in [0, 1), got ${rate}`);
  // An element is dropped where its 32 random bits are below the threshold.
  const threshold = Math.min(2 ** 32 - 1, Math.round(rate * 2 ** 32));
  const args = { n: x.size, seed, threshold, scale: 1 / (1 - rate) };
  const out = tape.empty(x.shape);
  tape.run(dropoutKernel, { out, x, ...args });
  return tape.record(out, [x], () => {
    tape.run(dropoutBackwardKernel, { dx: tape.grad(x), dout: tape.grad(out), ...args });
  });
}
