import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix, expectShape } from "./shapes.js";

export const klKernel = kernel({
  name: "kl",
  writes: ["loss", "dlogits"],
  reads: ["logits", "ref_logits", "weights"],
  dims: ["rows", "cols", "reverse"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

/** Which of the two distributions the expectation is over. */
export type KlDirection = "forward" | "reverse";

/**
 * The Kullback-Leibler divergence of every row, in nats: (rows). With p = softmax(logits) and
 * q = softmax(refLogits): `forward` KL(p ‖ q), `reverse` KL(q ‖ p). The end of a graph: the gradient of
 * Σ weights · loss goes to the logits at once; the reference gets none.
 * @param weights (rows); 0 leaves a row out of the gradient. Null: nothing gets a gradient.
 */
export function kl(
  tape: Tape,
  logits: Tensor,
  refLogits: Tensor,
  weights: Tensor | null,
  direction: KlDirection = "forward",
): Tensor {
  const { rows, cols } = asMatrix("kl", "logits", logits);
  expectShape("kl", "refLogits", refLogits, logits.shape);
  if (weights) expectShape("kl", "weights", weights, [rows]);
  const loss = tape.empty([rows]);
  // The kernel touches no gradient of a row of weight 0, so there need not be one.
  const dlogits = weights ? tape.grad(logits) : tape.empty([1]);
  const reverse = direction === "reverse" ? 1 : 0;
  const args = { loss, dlogits, logits, ref_logits: refLogits, weights: weights ?? tape.filled([rows], 0) };
  tape.run(klKernel, { ...args, rows, cols, reverse });
  return loss;
}
