import { FormatError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";

/** The weights of an open model, by our names. */
export interface WeightReader {
  readonly config: ModelConfig;
  /**
   * The values of a weight, with the shape that `weightShapes(config)` gives it.
   * Throws FormatError where they are not finite, RangeError for a name that the configuration has not.
   */
  read(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Throws FormatError naming the file and the tensor where a weight is NaN or infinite. */
export function expectFinite(values: Float32Array, file: string, tensor: string): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (value - value !== 0) throw new FormatError(file, `tensor '${tensor}' holds ${value} at index ${i}`);
  }
}
