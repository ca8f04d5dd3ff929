import { embedding } from "../../src/ops/embedding.js";
import { type CaseOptions, ids, Nd, type OpCase, opCase, trainable } from "./case.js";

/** Rows of the table by ids that count from `first`; other rows stay as they are in `out`. */
function gather(out: Nd, table: Nd, tokens: Nd, first = 0): void {
  const [count = 0, dim = 0] = table.shape;
  for (let t = 0; t < tokens.size; t++) {
    const row = tokens.at(t) - first;
    if (row < 0 || row >= count) continue;
    for (let d = 0; d < dim; d++) out.set(table.at(row, d), t, d);
  }
}

function embeddingCase(count: number, dim: number, n: number, extra: CaseOptions = {}): OpCase {
  return opCase({
    name: `${n} of ${count} rows of ${dim}`,
    inputs: (random) => ({
      table: trainable(random.normal([count, dim])),
      tokens: ids(random.integers(n, count)),
    }),
    run: (tape, { table, tokens }) => embedding(tape, table, tokens),
    reference: ({ table, tokens }) => {
      const out = new Nd([n, dim]);
      gather(out, table, tokens);
      return out;
    },
    ...extra,
  });
}

export const embeddingCases = [
  embeddingCase(1, 1, 1),
  embeddingCase(7, 5, 1),
  embeddingCase(7, 4, 5),
  // Ids that come again and again: their gradients add up.
  embeddingCase(3, 13, 40),
  embeddingCase(11, 65, 9),
  embeddingCase(5, 257, 3),
  opCase({
    name: "two tables into one result",
    inputs: (random) => ({
      table: trainable(random.normal([6, 7])),
      added: trainable(random.normal([2, 7])),
      tokens: ids([5, 6, 0, 7, 7, 6, 3, 5]),
    }),
    run: (tape, { table, added, tokens }) => {
      const into = embedding(tape, table, tokens);
      return embedding(tape, added, tokens, { first: 6, into });
    },
    reference: ({ table, added, tokens }) => {
      const out = new Nd([8, 7]);
      gather(out, table, tokens);
      gather(out, added, tokens, 6);
      return out;
    },
  }),
  opCase({
    name: "ids below `first` and up to 2^32 - 1 leave their rows alone",
    inputs: (random) => ({
      before: trainable(random.normal([2, 3])),
      table: trainable(random.normal([2, 3])),
      tokens: ids([0, 4, 1, 5, 3, 6, 2 ** 32 - 1, 2 ** 31]),
      zeros: ids(new Array(8).fill(0)),
    }),
    run: (tape, { before, table, tokens, zeros }) => {
      const into = embedding(tape, before, zeros);
      return embedding(tape, table, tokens, { first: 4, into });
    },
    reference: ({ before, table, tokens, zeros }) => {
      const out = new Nd([8, 3]);
      gather(out, before, zeros);
      gather(out, table, tokens, 4);
      return out;
    },
    // What stood in a row that was overwritten still gets its gradient: the caller keeps the ids apart.
    samples: 0,
  }),
  embeddingCase(4096, 512, 512, {
    samples: 0,
    bench: { shape: [4096, 512, 512], bytes: 512 * 512 * 8, backward: 2.5 },
  }),
];
