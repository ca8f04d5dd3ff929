import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix, expectShape } from "./shapes.js";

export const crossEntropyKernel = kernel({
  name: "cross_entropy",
  writes: ["loss", "dlogits"],
  reads: ["logits", "targets", "weights"],
  dims: ["rows", "cols"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

/**
 * -ln p(target) of every row of logits (rows, cols), in nats: (rows). The end of a graph: the gradient of
 * Σ weights · loss goes to the logits at once, since the softmax is at hand.
 * @param targets u32 (rows), each under cols: the caller checks
 * @param weights (rows); 0 leaves a row out of the gradient. Without them nothing gets a gradient.
 */
export function crossEntropy(tape: Tape, logits: Tensor, targets: Tensor, weights?: Tensor): Tensor {
  const { rows, cols } = asMatrix("crossEntropy", "logits", logits);
  expectShape("crossEntropy", "targets", targets, [rows], "u32");
  if (weights) expectShape("crossEntropy", "weights", weights, [rows]);
  const loss = tape.empty([rows]);
  // The kernel touches no gradient of a row of weight 0, so there need not be one.
  const dlogits = weights ? tape.grad(logits) : tape.empty([1]);
  const args = { loss, dlogits, logits, targets, weights: weights ?? tape.filled([rows], 0) };
  tape.run(crossEntropyKernel, { ...args, rows, cols });
  return loss;
}
