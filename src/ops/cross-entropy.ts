import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { asMatrix, expectNoGradient, expectShape } from "./shapes.js";

export const crossEntropyKernel = kernel({
  name: "cross_entropy",
  writes: ["loss", "logits"],
  reads: ["targets", "weights?"],
  dims: ["rows", "cols", "has_weights"],
  range: ({ rows }) => rows,
  grid: ({ rows }) => linearGrid(rows),
});

/** What a loss may be told besides its operands. */
export interface LossOptions {
  /** What each row counts for in the objective: (rows). Without them nothing gets a gradient. */
  readonly weights?: Tensor | undefined;
  /** Where the losses go, (rows), instead of into a tensor of their own. */
  readonly into?: Tensor;
}

/**
 * -ln p(target) of every row of logits (rows, cols), in nats: (rows). The end of a graph: with weights the logits
 * are written over by the gradient of Σ weights · loss, so that there is never a second matrix of that size.
 * @param targets u32 (rows), each under cols: the caller checks
 * @throws TypeError where the logits have a gradient already: something else still reads them
 */
export function crossEntropy(
  tape: Tape,
  logits: Tensor,
  targets: Tensor,
  { weights, into }: LossOptions = {},
): Tensor {
  const { rows, cols } = asMatrix("crossEntropy", "logits", logits);
  expectShape("crossEntropy", "targets", targets, [rows], "u32");
  if (weights) expectShape("crossEntropy", "weights", weights, [rows]);
  if (into) expectShape("crossEntropy", "into", into, [rows]);
  if (weights) expectNoGradient("crossEntropy", "logits", logits);
  const loss = into ?? tape.empty([rows]);
  const args = { loss, logits, targets, weights: weights ?? null, rows, cols };
  tape.run(crossEntropyKernel, { ...args, has_weights: weights ? 1 : 0 });
  if (weights) logits.grad = logits;
  return loss;
}
