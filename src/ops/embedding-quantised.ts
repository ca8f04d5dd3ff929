import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import type { EmbeddingOptions } from "./embedding.js";
import { expectWeight } from "./linear-quantised.js";
import { expectInteger, expectShape, expectTensor } from "./shapes.js";

export const embeddingQuantisedKernel = kernel({
  name: "embedding_quantised",
  writes: ["out"],
  reads: ["table", "ids"],
  dims: ["n", "dim", "first", "count", "weight_type"],
  range: ({ n }) => n,
  grid: ({ n, dim }) => linearGrid(Math.ceil((n * dim) / 256)),
  flops: ({ n, dim }) => n * dim,
});

/**
 * Rows of a table in a storage format, decoded; else as `embedding`. The table has no gradient.
 * @throws RangeError where the shapes do not fit, TypeError for a table that is f32 or requires a gradient
 */
export function embeddingQuantised(
  tape: Tape,
  table: Tensor,
  ids: Tensor,
  options: EmbeddingOptions = {},
): Tensor {
  const weight_type = expectWeight("embedding", "table", table);
  expectTensor("embedding", "ids", ids, "u32");
  const [count = 0, dim = 0] = table.shape;
  const n = ids.size;
  const first = options.first ?? 0;
  expectInteger("embedding", "first", first, 0);
  if (options.into) expectShape("embedding", "into", options.into, [n, dim]);
  const out = options.into ?? tape.empty([n, dim]);
  tape.run(embeddingQuantisedKernel, { out, table, ids, n, dim, first, count, weight_type });
  return out;
}
