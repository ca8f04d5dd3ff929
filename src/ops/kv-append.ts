import { kernel, linearGrid } from "../kernel.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { kvTypeCode } from "./attention.js";
import { expectInteger, expectShape, expectTensor } from "./shapes.js";

export const kvAppendKernel = kernel({
  name: "kv_append",
  writes: ["k_cache", "v_cache"],
  reads: ["k", "v", "positions?"],
  dims: ["batch", "rows", "width", "cache_rows", "position", "kv_type", "has_positions"],
  range: ({ batch, rows }) => batch * rows,
  grid: ({ batch, rows, width }) => linearGrid(Math.ceil((batch * rows * width) / 256)),
  flops: ({ batch, rows, width }) => 2 * batch * rows * width,
});

/** Where keys and values are kept. */
export interface KVTensors {
  /** (batch, cache_rows, kv_heads, head_dim), f32 or f16 */
  readonly k: Tensor;
  /** Of the same shape and type. */
  readonly v: Tensor;
}

/** Where the new rows go. */
export interface KVAppendOptions {
  /** Row of the cache that the first new one takes in every sequence; 0 by default. */
  readonly position?: number;
  /** The same for each sequence: u32 (batch), with room for all rows, which the caller checks. */
  readonly positions?: Tensor | undefined;
}

/**
 * Puts k and v (batch, rows, kv_heads, head_dim) into a cache, rounded to its type: in f16 to the nearest, and to
 * 65504 at most. Has no backward.
 * @throws RangeError where the shapes do not fit, or the cache has no room
 */
export function kvAppend(
  tape: Tape,
  cache: KVTensors,
  k: Tensor,
  v: Tensor,
  { position = 0, positions }: KVAppendOptions = {},
): void {
  expectTensor("kvAppend", "k", k, "f32", 4);
  expectShape("kvAppend", "v", v, k.shape);
  const [batch = 0, rows = 0, heads = 0, headDim = 0] = k.shape;
  const kv_type = kvTypeCode("kvAppend", "cache.k", cache.k, headDim);
  const cache_rows = cache.k.shape[1] ?? 0;
  expectShape("kvAppend", "cache.k", cache.k, [batch, cache_rows, heads, headDim], cache.k.dtype);
  expectShape("kvAppend", "cache.v", cache.v, cache.k.shape, cache.k.dtype);
  expectInteger("kvAppend", "position", position, 0, cache_rows - rows);
  if (positions) expectShape("kvAppend", "positions", positions, [batch], "u32");
  tape.run(kvAppendKernel, {
    ...{ k_cache: cache.k, v_cache: cache.v, k, v, positions: positions ?? null },
    ...{ batch, rows, width: heads * headDim, cache_rows, position },
    ...{ kv_type, has_positions: positions ? 1 : 0 },
  });
}
