import type { ModelConfig } from "../../src/model/config.js";

/** Bytes of what the backward of a Llama reads, for every row of the residual stream. */
export function savedBytes({
  hiddenSize,
  layers,
  heads,
  kvHeads,
  headDim,
  intermediateSize,
}: ModelConfig): number {
  const q = heads * headDim;
  const kv = kvHeads * headDim;
  // Each norm: what went in, its scale, what came out.
  const norms = 2 * (2 * hiddenSize + 1);
  // Queries, keys, values, what they became, and a log-sum-exp and a sum of gradients a head.
  const attention = q + 2 * kv + q + 2 * heads;
  // Gate, up, and their product.
  const mlp = 3 * intermediateSize;
  return 4 * (layers * (norms + attention + mlp) + 2 * hiddenSize + 1);
}
