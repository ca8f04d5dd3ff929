import { storageCode } from "../dtype.js";
import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import { formatShape, Tensor } from "../tensor.js";
import { expectInteger, expectShape, expectTensor } from "./shapes.js";

/** Rows (queries, of the forward all heads that read a kv head), and keys, of one workgroup's tile in WGSL. */
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
  reads: ["q", "k", "v", "positions?"],
  dims: [...dims, "kv_type", "has_positions"],
  scalars: ["scale"],
  range: ({ batch, kv_heads }) => batch * kv_heads,
  // Scores, and their sum of the values.
  flops: (dims) => 2 * scoreFlops(dims),
  grid: ({ batch, q_len, heads, kv_heads }) => [
    Math.ceil((q_len * heads) / kv_heads / TILE),
    kv_heads,
    batch,
  ],
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
  /**
   * Where the first query of each sequence stands: u32 (batch), each with its queries in k and v, which the caller
   * checks. A query sees the keys up to its own position. By default the last query stands at the last key.
   */
  readonly positions?: Tensor | undefined;
}

/**
 * The kernels' number of the type of keys and values: ggml's.
 * @throws TypeError for another type, RangeError for f16 heads of an odd length, which would begin inside of a word
 */
export function kvTypeCode(op: string, name: string, kv: Tensor, headDim: number): number {
  if (!(kv instanceof Tensor)) throw new TypeError(`${op}: ${name} must be a Tensor, got ${typeof kv}`);
  if (kv.dtype === "f32") return 0;
  if (kv.dtype !== "f16") throw new TypeError(`${op}: ${name} holds ${kv.dtype}, expected f32 or f16`);
  if (headDim % 2 !== 0) throw new RangeError(`${op}: f16 wants an even head_dim, got ${headDim}`);
  return storageCode("f16");
}

/**
 * Causal attention with grouped heads: q (batch, q_len, heads, head_dim), k and v (batch, kv_rows, kv_heads,
 * head_dim) give (batch, q_len, heads, head_dim). The last query stands at the last key; query head h reads
 * kv head ⌊h · kv_heads / heads⌋. Running softmax (Milakov and Gimelshein 2018) on tiles, and a backward that
 * recomputes them (FlashAttention-2, Dao 2023): memory grows with the length, not with its square. k and v may be
 * f16, as a cache keeps them; such, and sequences at positions of their own, have no backward.
 */
export function attention(
  tape: Tape,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): Tensor {
  expectTensor("attention", "q", q, "f32", 4);
  const [batch = 0, q_len = 0, heads = 0, head_dim = 0] = q.shape;
  const kv_type = kvTypeCode("attention", "k", k, head_dim);
  const [, kv_rows = 0, kv_heads = 0] = k.shape;
  expectShape("attention", "k", k, [batch, kv_rows, kv_heads, head_dim], k.dtype);
  expectShape("attention", "v", v, k.shape, k.dtype);
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
  const { positions } = options;
  if (positions) expectShape("attention", "positions", positions, [batch], "u32");

  const args = { batch, q_len, kv_len, kv_rows, heads, kv_heads, head_dim, window };
  const scale = options.scale ?? 1 / Math.sqrt(head_dim);
  const out = tape.empty(q.shape);
  const stats = tape.empty([batch, heads, q_len, 2]);
  tape.run(attentionKernel, {
    ...{ out, stats, q, k, v, positions: positions ?? null, ...args },
    ...{ kv_type, has_positions: positions ? 1 : 0, scale },
  });
  return tape.record(out, [q, k, v], () => {
    if (positions || kv_type !== 0) {
      throw new TypeError("attention: f16 keys and values, and positions of each sequence, have no backward");
    }
    const dout = tape.grad(out);
    tape.run(attentionDeltaKernel, { stats, dout, out, batch, q_len, heads, head_dim });
    const [dq, dk, dv] = [q, k, v].map((x) => (x.requiresGrad ? tape.grad(x) : tape.filled(x.shape, 0)));
    if (dq && dk && dv) {
      tape.run(attentionBackwardKernel, { dq, dk, dv, dout, q, k, v, stats, ...args, scale });
    }
  });
}
