import { attention } from "../../src/ops/attention.js";
import { type CaseOptions, frozen, ids, Nd, type OpCase, opCase, stored, trainable } from "./case.js";

interface Shape {
  readonly batch?: number;
  readonly q: number;
  /** Filled rows of k and v; as many as queries by default. */
  readonly kv?: number;
  /** All rows of k and v; those that are not filled hold NaN. */
  readonly rows?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly dim: number;
  readonly window?: number;
  readonly scale?: number;
  /** Standard deviation of q. */
  readonly spread?: number;
  /** Where the first query of each sequence stands; the last at the last key by default. */
  readonly positions?: readonly number[];
}

/** Softmax over the visible keys, query by query. */
function reference(
  { q, k, v }: Record<"q" | "k" | "v", Nd>,
  { kv, window = 0, scale, positions }: Shape,
): Nd {
  const [batch = 0, queries = 0, heads = 0, dim = 0] = q.shape;
  const [, rows = 0, kvHeads = 1] = k.shape;
  const factor = scale ?? 1 / Math.sqrt(dim);
  const out = new Nd(q.shape);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const g = Math.floor((h * kvHeads) / heads);
      for (let t = 0; t < queries; t++) {
        const position = (positions?.[b] ?? (kv ?? rows) - queries) + t;
        const first = window > 0 ? Math.max(0, position - window + 1) : 0;
        const scores: number[] = [];
        for (let j = first; j <= position; j++) {
          let dot = 0;
          for (let d = 0; d < dim; d++) dot += q.at(b, t, h, d) * k.at(b, j, g, d);
          scores.push(factor * dot);
        }
        const largest = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - largest));
        const total = weights.reduce((x, y) => x + y, 0);
        for (let d = 0; d < dim; d++) {
          let sum = 0;
          for (const [i, weight] of weights.entries()) sum += (weight / total) * v.at(b, first + i, g, d);
          out.set(sum, b, t, h, d);
        }
      }
    }
  }
  return out;
}

function attentionCase(shape: Shape, extra: CaseOptions = {}): OpCase {
  const {
    batch = 1,
    q,
    kv = q,
    rows = kv,
    heads = 1,
    kvHeads = heads,
    dim,
    window,
    scale,
    spread = 1,
  } = shape;
  const spare = (cache: Nd) => {
    const perBatch = cache.size / batch;
    const filled = kv * kvHeads * dim;
    return cache.map((value, i) => (i % perBatch < filled ? value : Number.NaN));
  };
  const words = [
    `${q} queries`,
    kv !== q && `${kv} keys`,
    rows !== kv && `cache of ${rows}`,
    batch > 1 && `batch ${batch}`,
    `${heads}/${kvHeads} heads of ${dim}`,
    window && `window ${window}`,
    scale && `scale ${scale}`,
    spread !== 1 && `scores of ${spread}`,
  ];
  return opCase({
    name: words.filter(Boolean).join(", "),
    inputs: (random) => ({
      q: trainable(random.normal([batch, q, heads, dim], spread)),
      k: trainable(spare(random.normal([batch, rows, kvHeads, dim]))),
      v: trainable(spare(random.normal([batch, rows, kvHeads, dim]))),
    }),
    run: (tape, { q, k, v }) =>
      attention(tape, q, k, v, { kvLength: kv, ...(window && { window }), ...(scale && { scale }) }),
    reference: (x) => reference(x, { ...shape, kv }),
    ...extra,
  });
}

/**
 * Over a cache: keys and values of f16 or f32, and sequences that stand at different positions. What lies behind them
 * is no part of any of them; it is as large as nothing else, where NaN cannot be stored.
 */
function cachedCase(shape: Shape & { readonly batch: number }, dtype: "f16" | "f32"): OpCase {
  const { batch, q, kv = q, rows = kv, heads = 1, kvHeads = heads, dim, window, positions } = shape;
  const each = rows * kvHeads * dim;
  const cache = (values: Nd) => {
    const spare = values.map((value, i) => {
      const row = Math.floor((i % each) / (kvHeads * dim));
      return row < (positions?.[Math.floor(i / each)] ?? kv - q) + q ? value : 6e4;
    });
    return dtype === "f16" ? stored(spare, "f16") : frozen(spare);
  };
  return opCase({
    name: `${q} queries, ${kv} keys of ${dtype}, cache of ${rows}, ${heads}/${kvHeads} heads of ${dim}${
      positions ? `, from ${positions}` : ""
    }${window ? `, window ${window}` : ""}`,
    inputs: (random) => ({
      q: frozen(random.normal([batch, q, heads, dim])),
      k: cache(random.normal([batch, rows, kvHeads, dim])),
      v: cache(random.normal([batch, rows, kvHeads, dim])),
      starts: ids(positions ?? Array(batch).fill(kv - q)),
    }),
    run: (tape, x) =>
      attention(tape, x.q, x.k, x.v, {
        kvLength: kv,
        positions: positions && x.starts,
        ...(window && { window }),
      }),
    reference: (x) => reference(x, { ...shape, kv }),
    ...(dtype === "f16" && { tolerance: HALVES }),
  });
}

/** WebGPU may take subnormal halves for 0: 6e-5 of a value or key of 1, of which one in 10,000 is. */
const HALVES = { forward: { relative: 2e-6, absolute: 1e-5 } };

/** A score of 1e4 has an error of 1e-3 in f32, and its exponential the same as a relative one. */
const HUGE_SCORES = { forward: { relative: 1e-2, absolute: 1e-2 } };

/** A value of that kind in one visible row of q, k or v. */
function nonFinite(operand: "q" | "k" | "v", value: number, q: number): OpCase {
  return opCase({
    name: `${value} in ${operand}, ${q} queries`,
    inputs: (random) => {
      const make = (name: string, rows: number) =>
        frozen(random.normal([1, rows, 1, 5]).map((x, i) => (name === operand && i === 1 ? value : x)));
      return { q: make("q", q), k: make("k", 7), v: make("v", 7) };
    },
    run: (tape, { q, k, v }) => attention(tape, q, k, v),
    reference: (x) => reference(x, { q, dim: 5 }),
    wasmOnly: true,
  });
}

export const attentionCases = [
  attentionCase({ q: 1, dim: 1 }),
  ...[1, 3, 5, 12, 64, 128, 256].map((dim) => attentionCase({ q: 7, dim })),
  ...[1, 3, 5, 12, 64].map((dim) => attentionCase({ q: 2, kv: 6, dim, heads: 2 })),
  // Decoding: few queries over a cache with room to spare.
  ...[1, 2, 3, 4, 5].map((q) =>
    attentionCase({ q, kv: 11, rows: 16, batch: 2, heads: 4, kvHeads: 2, dim: 6 }),
  ),
  ...[1, 4].map((q) => attentionCase({ q, kv: 130, rows: 133, heads: 2, kvHeads: 1, dim: 8 })),
  ...[1, 3, 5].map((q) => attentionCase({ q, kv: 130, dim: 8, window: 70 })),
  // Around the tiles of 48 queries by 64 keys (wasm) and 32 by 32 (WGSL).
  ...[31, 32, 33, 47, 49, 63, 64, 65, 97].map((q) => attentionCase({ q, dim: 4 }, { samples: 24 })),
  attentionCase({ q: 50, kv: 131, heads: 2, kvHeads: 1, dim: 9 }, { samples: 16 }),
  attentionCase({ q: 67, kv: 70, rows: 75, batch: 2, heads: 3, kvHeads: 3, dim: 5 }, { samples: 16 }),
  attentionCase({ q: 13, heads: 6, kvHeads: 2, dim: 8, batch: 2 }),
  attentionCase({ q: 9, heads: 5, kvHeads: 1, dim: 3 }),
  // Rows of a multiple of 1 KiB, which the wasm kernels gather: those of q, of k and v, of both.
  attentionCase({ q: 51, kv: 67, heads: 4, kvHeads: 1, dim: 64 }, { samples: 8 }),
  attentionCase({ q: 51, kv: 67, heads: 12, kvHeads: 4, dim: 64 }, { samples: 8 }),
  attentionCase({ q: 49, kv: 66, rows: 70, batch: 2, heads: 4, dim: 64 }, { samples: 8 }),
  // One visible key: the gradients of q and k cancel to 0.
  attentionCase(
    { q: 20, heads: 2, dim: 4, window: 1 },
    { tolerance: { gradient: { relative: 1e-5, absolute: 1e-5, floor: 1e-6 } } },
  ),
  ...[2, 7, 100].map((window) => attentionCase({ q: 20, heads: 2, dim: 4, window })),
  ...[20, 31, 64, 65].map((window) => attentionCase({ q: 133, dim: 4, window }, { samples: 16 })),
  attentionCase({ q: 5, kv: 90, dim: 8, window: 3, heads: 2 }),
  attentionCase({ q: 11, dim: 8, scale: 0.3 }),
  // The largest score wins all: no overflow on the way. Its gradient is that of a constant.
  ...[3, 70].map((q) =>
    attentionCase({ q, kv: 75, dim: 16, spread: 1e4 }, { samples: 0, tolerance: HUGE_SCORES }),
  ),
  attentionCase({ q: 6, dim: 4, spread: 0 }),
  // Decoding and tiles, over and beside whole tiles of keys and whole vectors of a head.
  ...(["f16", "f32"] as const).flatMap((dtype) => [
    ...[2, 6, 8, 18, 64, 256].map((dim) => cachedCase({ batch: 1, q: 1, kv: 70, rows: 72, dim }, dtype)),
    cachedCase({ batch: 2, q: 3, kv: 130, heads: 4, kvHeads: 2, dim: 12 }, dtype),
    cachedCase({ batch: 2, q: 67, kv: 131, rows: 140, heads: 4, kvHeads: 2, dim: 10 }, dtype),
    cachedCase({ batch: 1, q: 20, kv: 90, heads: 2, dim: 8, window: 33 }, dtype),
    cachedCase({ batch: 3, q: 1, kv: 68, heads: 6, kvHeads: 2, dim: 8, positions: [0, 63, 67] }, dtype),
    cachedCase(
      { batch: 3, q: 5, kv: 75, rows: 80, heads: 4, kvHeads: 1, dim: 6, positions: [70, 0, 31], window: 7 },
      dtype,
    ),
    cachedCase({ batch: 2, q: 40, kv: 100, rows: 100, heads: 2, dim: 4, positions: [3, 60] }, dtype),
  ]),
  ...(["q", "k", "v"] as const).flatMap((operand) =>
    [Number.NaN, Number.POSITIVE_INFINITY].flatMap((value) =>
      [2, 6].map((q) => nonFinite(operand, value, q)),
    ),
  ),
  attentionCase(
    { q: 256, heads: 8, kvHeads: 4, dim: 64 },
    {
      name: "bench",
      samples: 0,
      // Two products of queries by keys, half of them visible.
      bench: { shape: [1, 256, 8, 4, 64], flops: 2 * 2 * 8 * 64 * (256 * 257) * 0.5, backward: 3.5 },
    },
  ),
];
