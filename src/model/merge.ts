import type { RowValues } from "./adapter.js";
import type { ModelConfig } from "./config.js";
import { decoded, type StoredWeight } from "./stored-weight.js";

/** A low-rank addition on the host: scale · B · A. */
export interface LoraValues {
  /** (rank, in) */
  readonly a: Float32Array;
  /** (out, rank) */
  readonly b: Float32Array;
  /** alpha / rank */
  readonly scale: number;
}

/** What training has changed of a model whose weights stayed as they are. */
export interface Changes {
  /** By the names of linear layers. */
  readonly lora: ReadonlyMap<string, LoraValues>;
  /** Rows that stand in for, or follow, those of the embedding and the head. */
  readonly rows: RowValues | null;
}

/** A model as data: its configuration, and where its weights lie. */
export interface WeightSource {
  readonly config: ModelConfig;
  weight(name: string): StoredWeight;
}

/**
 * The model with the changes in its weights. Nothing is computed before a weight is read, and then by rows, so that
 * the merged model is never in memory as a whole. Sums are taken in float64 and rounded to f32 once.
 */
export function mergeChanges({ config, weight }: WeightSource, { lora, rows }: Changes): WeightSource {
  const appended = rows?.ids.filter((id) => id >= config.vocabSize).length ?? 0;
  const vocabSize = config.vocabSize + appended;
  return {
    config: { ...config, vocabSize },
    weight(name) {
      const own = weight(name);
      if (rows && name === "embed.weight") return withRows(own, rows.ids, rows.input, vocabSize);
      if (rows && name === "head.weight") return withRows(own, rows.ids, rows.output, vocabSize);
      const addition = name.endsWith(".weight") ? lora.get(name.slice(0, -".weight".length)) : undefined;
      return addition ? withLora(own, addition) : own;
    },
  };
}

/** W + scale · B · A, as f32. */
function withLora(weight: StoredWeight, { a, b, scale }: LoraValues): StoredWeight {
  const [out = 0, width = 0] = weight.shape;
  const rank = b.length / out;
  return withValues(weight, weight.shape, (values, first) => {
    const sum = new Float64Array(width);
    for (let row = 0; row * width < values.length; row++) {
      const target = values.subarray(row * width, (row + 1) * width);
      sum.set(target);
      for (let k = 0; k < rank; k++) {
        const factor = scale * (b[(first + row) * rank + k] as number);
        for (let c = 0; c < width; c++) sum[c] = (sum[c] as number) + factor * (a[k * width + c] as number);
      }
      target.set(sum);
    }
  });
}

/** A table of `vocabSize` rows: the weight's own, and those of `ids` in their places, as f32. */
function withRows(
  weight: StoredWeight,
  ids: readonly number[],
  rows: Float32Array,
  vocabSize: number,
): StoredWeight {
  const [, width = 0] = weight.shape;
  return withValues(weight, [vocabSize, width], (values, first) => {
    for (const [i, id] of ids.entries()) {
      const at = (id - first) * width;
      if (at >= 0 && at < values.length) values.set(rows.subarray(i * width, (i + 1) * width), at);
    }
  });
}

/**
 * A weight whose values are changed when they are read.
 * @param shape with as many rows as the weight, or more, which begin as 0
 * @param change gets the values of some rows, and the number of the first
 */
function withValues(
  weight: StoredWeight,
  shape: readonly number[],
  change: (values: Float32Array, first: number) => void,
): StoredWeight {
  const [own = 0, width = 0] = weight.shape;
  return {
    shape,
    dtype: "f32",
    rowsTogether: weight.rowsTogether,
    async read(first, count, into) {
      const values = new Float32Array(count * width);
      const known = Math.min(count, Math.max(0, own - first));
      if (known > 0) values.set(await valuesOf(weight, first, known));
      change(values, first);
      into.set(new Uint8Array(values.buffer));
    },
  };
}

/** The values of some rows. */
async function valuesOf(weight: StoredWeight, first: number, count: number): Promise<Float32Array> {
  const [, width = 0] = weight.shape;
  const part: StoredWeight = {
    ...weight,
    shape: [count, width],
    read: (from, rows, into) => weight.read(first + from, rows, into),
  };
  const values = new Float32Array(count * width);
  for await (const piece of decoded(part)) values.set(piece.values, piece.first * width);
  return values;
}
