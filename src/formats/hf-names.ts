import type { ModelConfig } from "../model/config.js";
import { architectureOf } from "./hf-architectures.js";

/** Where a weight of ours is in a Hugging Face file. */
export interface HuggingFaceName {
  readonly name: string;
  /** Whether the file holds it as (in, out), ours being (out, in). */
  readonly transpose: boolean;
}

/**
 * The Hugging Face name of one of our weights (`layers.0.q.weight`) or of a linear layer (`layers.0.q`).
 * Throws RangeError for a name that the architecture has not.
 */
export function toHuggingFaceName(config: ModelConfig, ourName: string): HuggingFaceName {
  const { names, prefix, layers, transposed } = architectureOf(config.architecture, "model");
  const match = /^(?:layers\.(\d+)\.)?(\w+?)(\.weight|\.bias)?$/.exec(ourName);
  const [, layer, part = "", suffix = ""] = match ?? [];
  const theirs = Object.hasOwn(names, part) ? names[part] : undefined;
  const isBlockPart = !["embed", "positions", "norm", "head"].includes(part);
  if (theirs === undefined || isBlockPart !== (layer !== undefined)) {
    throw new RangeError(`a model of type '${config.architecture}' has no weight '${ourName}'`);
  }
  const transpose = transposed && isBlockPart && suffix !== ".bias" && !part.endsWith("norm");
  if (layer !== undefined) return { name: `${prefix}${layers}.${layer}.${theirs}${suffix}`, transpose };
  return { name: `${part === "head" ? "" : prefix}${theirs}${suffix}`, transpose };
}

/** Rows to columns: (rows, cols) to (cols, rows). */
export function transpose(values: Float32Array, rows: number, cols: number): Float32Array<ArrayBuffer> {
  const result = new Float32Array(values.length);
  transposeInto(result, values, rows, cols);
  return result;
}

/** The same into an array, for values of any size as bit patterns too. */
export function transposeInto<Values extends Float32Array | Uint16Array | Uint32Array>(
  result: Values,
  values: Values,
  rows: number,
  cols: number,
): void {
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) result[col * rows + row] = values[row * cols + col] as number;
  }
}
