import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import type { LossOptions } from "./cross-entropy.js";
import { asMatrix, expectNoGradient, expectShape } from "./shapes.js";

export const klKernel = kernel({
  name: "kl",
  writes: ["loss", "logits"],
  reads: ["ref_logits", "weights?"],
  dims: ["rows", "cols", "reverse", "has_weights"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

/** Which of the two distributions the expectation is over. */
export type KlDirection = "forward" | "reverse";

export interface KlOptions extends LossOptions {
  /** `forward` by default. */
  readonly direction?: KlDirection;
}

/**
 * The Kullback-Leibler divergence of every row, in nats: (rows). With p = softmax(logits) and
 * q = softmax(refLogits): `forward` KL(p ‖ q), `reverse` KL(q ‖ p). The end of a graph: with weights the logits are
 * written over by the gradient of Σ weights · loss; the reference gets none.
 * @throws TypeError where the logits have a gradient already: something else still reads them
 */
export function kl(
  tape: Tape,
  logits: Tensor,
  refLogits: Tensor,
  { weights, into, direction = "forward" }: KlOptions = {},
): Tensor {
  const { rows, cols } = asMatrix("kl", "logits", logits);
  expectShape("kl", "refLogits", refLogits, logits.shape);
  if (weights) expectShape("kl", "weights", weights, [rows]);
  if (into) expectShape("kl", "into", into, [rows]);
  if (weights) expectNoGradient("kl", "logits", logits);
  const loss = into ?? tape.empty([rows]);
  const args = { loss, logits, ref_logits: refLogits, weights: weights ?? null, rows, cols };
  tape.run(klKernel, { ...args, reverse: direction === "reverse" ? 1 : 0, has_weights: weights ? 1 : 0 });
  if (weights) logits.grad = logits;
  return loss;
}
