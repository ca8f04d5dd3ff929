import type { StorageType } from "../../src/dtype.js";
import { embedding } from "../../src/ops/embedding.js";
import { ids, Nd, type OpCase, opCase, stored, trainable } from "./case.js";

/** Every decoded value is exact. */
const EXACT = { forward: { relative: 0, absolute: 0 } };

function lookup(dtype: StorageType, count: number, dim: number, n: number, scale = 1): OpCase {
  return opCase({
    name: `${n} of ${count} rows of ${dim} in ${dtype}${scale === 1 ? "" : `, of ${scale}`}`,
    inputs: (random) => ({
      table: stored(random.normal([count, dim], scale), dtype),
      tokens: ids(random.integers(n, count)),
    }),
    run: (tape, { table, tokens }) => embedding(tape, table, tokens),
    reference: ({ table, tokens }) =>
      new Nd([n, dim]).map((_, i) => table.at(tokens.at(Math.floor(i / dim)), i % dim)),
    tolerance: EXACT,
  });
}

/** Rows that the table does not answer for come from a second one, which has a gradient. */
function withAdded(dtype: StorageType): OpCase {
  const tokens = [7, 5, 2, 8, 8, 3, 2 ** 32 - 1, 7];
  return opCase({
    name: `${dtype}, two tables into one result`,
    inputs: (random) => ({
      before: trainable(random.normal([2, 32])),
      table: stored(random.normal([6, 32]), dtype),
      tokens: ids(tokens),
      zeros: ids(tokens.map(() => 0)),
    }),
    run: (tape, { before, table, tokens, zeros }) => {
      const into = embedding(tape, before, zeros);
      return embedding(tape, table, tokens, { first: 2, into });
    },
    reference: ({ before, table }) =>
      new Nd([tokens.length, 32]).map((_, i) => {
        const row = (tokens[Math.floor(i / 32)] as number) - 2;
        return row < 6 ? table.at(row, i % 32) : before.at(0, i % 32);
      }),
    tolerance: EXACT,
    // What stood in a row that was overwritten still gets its gradient: the caller keeps the ids apart.
    samples: 0,
  });
}

export const embeddingQuantisedCases = (["f16", "bf16", "q8_0", "q4_0"] as const).flatMap((dtype) => [
  lookup(dtype, 1, 32, 1),
  lookup(dtype, 7, 96, 5),
  lookup(dtype, 5, 288, 3),
  // The scales, and the halves, are subnormal.
  lookup(dtype, 5, 64, 9, 1e-6),
  withAdded(dtype),
  ...(dtype === "f16" || dtype === "bf16" ? [lookup(dtype, 4, 1, 3), lookup(dtype, 4, 13, 6)] : []),
]);
