import { kvAppend } from "../../src/ops/kv-append.js";
import type { Tensor } from "../../src/tensor.js";
import { frozen, ids, Nd, type OpCase, opCase, stored } from "./case.js";

interface Shape {
  readonly batch?: number;
  readonly rows: number;
  readonly cacheRows: number;
  readonly heads?: number;
  readonly dim: number;
  readonly position?: number;
  readonly positions?: readonly number[];
  /** Standard deviation of the new rows. */
  readonly spread?: number;
}

/** A number has one nearest. */
const EXACT = { forward: { relative: 0, absolute: 0 } };

/** The nearest binary16 value, ties to even, from its definition: steps of 2^-10 of the power of two below. */
function nearestHalf(value: number): number {
  const magnitude = Math.min(Math.abs(value), 65504);
  const step = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.max(magnitude, 2 ** -30)))) - 10);
  const steps = magnitude / step;
  const below = Math.floor(steps);
  const isUp = steps - below > 0.5 || (steps - below === 0.5 && below % 2 === 1);
  return Math.sign(value) * Math.min(65504, (below + (isUp ? 1 : 0)) * step);
}

function appendCase(shape: Shape, dtype: "f16" | "f32"): OpCase {
  const { batch = 1, rows, cacheRows, heads = 1, dim, position = 0, positions, spread = 1 } = shape;
  const cache = (values: Nd) => (dtype === "f16" ? stored(values, dtype) : frozen(values));
  const placed = (before: Nd, x: Nd) => {
    const out = new Nd(before.shape, before.data);
    for (let b = 0; b < batch; b++) {
      for (let t = 0; t < rows; t++) {
        for (let h = 0; h < heads; h++) {
          for (let d = 0; d < dim; d++) {
            const value = x.at(b, t, h, d);
            out.set(
              dtype === "f16" ? nearestHalf(value) : value,
              ...([b, (positions?.[b] ?? position) + t, h, d] as const),
            );
          }
        }
      }
    }
    return out;
  };
  return opCase({
    name: `(${batch}, ${rows}, ${heads}, ${dim}) into ${cacheRows} rows of ${dtype} from ${positions ?? position}${
      spread === 1 ? "" : `, of ${spread}`
    }`,
    inputs: (random) => ({
      kCache: cache(random.normal([batch, cacheRows, heads, dim])),
      vCache: cache(random.normal([batch, cacheRows, heads, dim])),
      k: frozen(random.normal([batch, rows, heads, dim], spread)),
      v: frozen(random.normal([batch, rows, heads, dim], spread)),
      starts: ids(positions ?? Array(batch).fill(position)),
    }),
    run(tape, { kCache, vCache, k, v, starts }) {
      // The op writes over the cache, so it gets a copy.
      const copy = (tensor: Tensor) => {
        const to = tape.empty(tensor.shape, tensor.dtype);
        tape.backend.copy(to, tensor);
        return to;
      };
      const written = { k: copy(kCache), v: copy(vCache) };
      kvAppend(tape, written, k, v, { position, positions: positions && starts });
      return written;
    },
    reference: ({ kCache, vCache, k, v }) => ({ k: placed(kCache, k), v: placed(vCache, v) }),
    tolerance: EXACT,
    samples: 0,
  });
}

export const kvAppendCases = (["f32", "f16"] as const).flatMap((dtype) => [
  appendCase({ rows: 1, cacheRows: 1, dim: 2 }, dtype),
  appendCase({ rows: 1, cacheRows: 5, heads: 3, dim: 6, position: 4 }, dtype),
  appendCase({ batch: 2, rows: 3, cacheRows: 7, heads: 2, dim: 4, position: 2 }, dtype),
  appendCase({ batch: 3, rows: 2, cacheRows: 9, dim: 10, positions: [7, 0, 3] }, dtype),
  appendCase({ rows: 40, cacheRows: 70, heads: 5, dim: 8, position: 20 }, dtype),
  // Subnormal halves, halves that underflow to 0, and those that are too large.
  ...[1e-5, 1e-8, 4e4].map((spread) => appendCase({ rows: 8, cacheRows: 8, dim: 64, spread }, dtype)),
]);
