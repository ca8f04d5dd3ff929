import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import { formatShape, type Tensor } from "../tensor.js";
import { expectInteger, expectShape, expectTensor } from "./shapes.js";

/** Queries, and keys, of one workgroup's tile in the WGSL kernels. */
const TILE = 32;

const dims = ["batch", "q_len", "kv_len", "kv_rows", "heads", "kv_heads", "head_dim", "window"] as const;

/** Products of queries with keys, each a multiply and an add along the head: half of them where both are as many. */
function scoreFlops({
  batch,
  q_len,
  kv_len,
  heads,
  head_dim,
}: Record<(typeof dims)[number], number>): number {
  return 2 * batch * heads * head_dim * q_len * (kv_len - q_len / 2);
}

export const attentionKernel = kernel({
  name: "attention",
  writes: ["out", "stats"],
  reads: ["q", "k", "v"],
  dims,
  scalars: ["scale"],
  range: ({ batch, kv_heads }) => batch * kv_heads,
  // Scores, and their sum of the values.
  flops: (dims) => 2 * scoreFlops(dims),
  grid: ({ batch, q_len, heads }) => [Math.ceil(q_len / TILE), heads, batch],
});

export const attentionDeltaKernel = kernel({
  name: "attention_delta",
  writes: ["stats"],
  reads: ["dout", "out"],
  dims: ["batch", "q_len", "heads", "head_dim"],
  range: ({ batch, q_len }) => batch * q_len,
  grid: ({ batch, q_len, heads }) => linearGrid(Math.ceil((batch * q_len * heads) / 64)),
});

export const attentionBackwardKernel = kernel({
  name: "attention_backward",
  writes: ["dq", "dk", "dv"],
  reads: ["dout", "q", "k", "v", "stats"],
  dims,
  scalars: ["scale"],
  range: ({ batch, kv_heads }) => batch * kv_heads,
  // Scores again, and the gradients of scores, q, k and v.
  flops: (dims) => 5 * scoreFlops(dims),
  // First the workgroups of dk and dv (a tile of keys of one kv head), then those of dq (a tile of queries of a head).
  grid: ({ batch, q_len, kv_len, heads, kv_heads }) => [
    Math.ceil(kv_len / TILE) * kv_heads + Math.ceil(q_len / TILE) * heads,
    batch,
  ],
});

/** Largest head that the kernels have room for. */
export const MAX_HEAD_DIM = 256;

/** What attention needs to know besides q, k and v. */
export interface AttentionOptions {
  /** Factor of the scores; by default 1 / √head_dim. */
  readonly scale?: number;
  /** Keys that a query sees, its own position included; all before it by default. */
  readonly window?: number | null;
  /** How many rows of k and v are filled, where they are a cache with more room; all by default. */
  readonly kvLength?: number;
}

/**
 * Causal attention with grouped heads: q (batch, q_len, heads, head_dim), k and v (batch, kv_rows, kv_heads,
 * head_dim) give (batch, q_len, heads, head_dim). The last query stands at the last key; query head h reads
 * kv head ⌊h · kv_heads / heads⌋. Running softmax (Milakov and Gimelshein 2018) on tiles, and a backward that
 * recomputes them (FlashAttention-2, Dao 2023): memory grows with the length, not with its square.
 */
export function attention(
  tape: Tape,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): Tensor {
  expectTensor("attention", "q", q, "f32", 4);
  expectTensor("attention", "k", k, "f32", 4);
  const [batch = 0, q_len = 0, heads = 0, head_dim = 0] = q.shape;
  const [, kv_rows = 0, kv_heads = 0] = k.shape;
  expectShape("attention", "k", k, [batch, kv_rows, kv_heads, head_dim]);
  expectShape("attention", "v", v, k.shape);
  expectInteger("attention", "head_dim", head_dim, 1, MAX_HEAD_DIM);
  if (heads % kv_heads !== 0) {
    throw new RangeError(
      `attention: ${heads} heads of q ${formatShape(q.shape)} do not divide by ${kv_heads} of k`,
    );
  }
  const kv_len = options.kvLength ?? kv_rows;
  expectInteger("attention", "kvLength", kv_len, q_len, kv_rows);
  const window = options.window ?? 0;
  expectInteger("attention", "window", window, 0);

  const args = { batch, q_len, kv_len, kv_rows, heads, kv_heads, head_dim, window };
  const scale = options.scale ?? 1 / Math.sqrt(head_dim);
  const out = tape.empty(q.shape);
  const stats = tape.empty([batch, heads, q_len, 2]);
  tape.run(attentionKernel, { out, stats, q, k, v, ...args, scale });
  return tape.record(out, [q, k, v], () => {
    const dout = tape.grad(out);
    tape.run(attentionDeltaKernel, { stats, dout, out, batch, q_len, heads, head_dim });
    const [dq, dk, dv] = [q, k, v].map((x) => (x.requiresGrad ? tape.grad(x) : tape.filled(x.shape, 0)));
    if (dq && dk && dv) {
      tape.run(attentionBackwardKernel, { dq, dk, dv, dout, q, k, v, stats, ...args, scale });
    }
  });
}
