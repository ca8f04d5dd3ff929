import { align } from "../backend.js";
import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { expectShape, expectTensor } from "./shapes.js";

/** Elements that one partial sum covers, in both kernels. */
export const NORM_BLOCK = 4096;

export const squaredNormKernel = kernel({
  name: "squared_norm",
  writes: ["partials"],
  reads: ["x"],
  dims: ["n"],
  range: ({ n }) => Math.ceil(n / NORM_BLOCK),
  grid: ({ n }) => linearGrid(Math.ceil(n / NORM_BLOCK)),
});

/**
 * Σ x² in blocks of 4096 elements: (blocks). The host adds them up in order, in float64.
 * @param into where they go instead of into a tensor of their own
 */
export function squaredNorm(tape: Tape, x: Tensor, into?: Tensor): Tensor {
  expectTensor("squaredNorm", "x", x);
  const shape = [blocksOf(x)];
  if (into) expectShape("squaredNorm", "into", into, shape);
  const partials = into ?? tape.empty(shape);
  tape.run(squaredNormKernel, { partials, x, n: x.size });
  return partials;
}

/** Σ x² of each of several tensors of one memory, with one read for all. */
export async function squaredNorms(tape: Tape, tensors: readonly Tensor[]): Promise<number[]> {
  let length = 0;
  const places = tensors.map((x) => {
    const from = length;
    length += align(4 * blocksOf(x)) / 4;
    return { x, from, to: from + blocksOf(x) };
  });
  const partials = tape.empty([length]);
  for (const { x, from, to } of places) squaredNorm(tape, x, partials.rows(from, to));
  const values = await partials.read();
  return places.map(({ from, to }) => values.subarray(from, to).reduce((sum, value) => sum + value, 0));
}

function blocksOf(x: Tensor): number {
  return Math.ceil(x.size / NORM_BLOCK);
}
