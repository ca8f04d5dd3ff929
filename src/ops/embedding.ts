import { isStorage } from "../dtype.js";
import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import { Tensor } from "../tensor.js";
import { embeddingQuantised } from "./embedding-quantised.js";
import { expectInteger, expectShape, expectTensor } from "./shapes.js";

const dims = ["n", "dim", "first", "count"] as const;

export const embeddingKernel = kernel({
  name: "embedding",
  writes: ["out"],
  reads: ["table", "ids"],
  dims,
  range: ({ n }) => n,
  grid: ({ n, dim }) => linearGrid(Math.ceil((n * dim) / 256)),
});

export const embeddingBackwardKernel = kernel({
  name: "embedding_backward",
  writes: ["dtable"],
  reads: ["dout", "ids"],
  dims,
  range: ({ dim }) => dim,
  // A workgroup adds to every sixteenth row of the table.
  grid: ({ dim }) => [Math.ceil(dim / 64), 16],
});

/** A result to fill and the ids that a table answers for. */
export interface EmbeddingOptions {
  /** Id of the table's first row; 0 by default. */
  readonly first?: number;
  /** Fill the rows of this result whose ids are the table's, instead of making one. */
  readonly into?: Tensor;
}

/**
 * Rows of `table` (count, dim) by `ids` (u32, n): (n, dim); its backward scatter-adds in the order of the ids.
 * Ids outside [first, first + count) leave their rows as they are: the caller checks ids, or fills them from
 * another table through `into`. With rows of activations as the table it gathers positions.
 */
export function embedding(tape: Tape, table: Tensor, ids: Tensor, options: EmbeddingOptions = {}): Tensor {
  if (table instanceof Tensor && isStorage(table.dtype)) return embeddingQuantised(tape, table, ids, options);
  expectTensor("embedding", "table", table, "f32", 2);
  expectTensor("embedding", "ids", ids, "u32");
  const [count = 0, dim = 0] = table.shape;
  const n = ids.size;
  const first = options.first ?? 0;
  expectInteger("embedding", "first", first, 0);
  if (options.into) expectShape("embedding", "into", options.into, [n, dim]);
  const out = options.into ?? tape.empty([n, dim]);
  const args = { n, dim, first, count };
  tape.run(embeddingKernel, { out, table, ids, ...args });
  return tape.record(out, [table], () => {
    tape.run(embeddingBackwardKernel, { dtable: tape.grad(table), dout: tape.grad(out), ids, ...args });
  });
}
