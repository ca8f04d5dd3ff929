import type { Backend } from "../backend.js";
import { WEIGHT_TYPES, type WeightType } from "../dtype.js";
import { Model } from "../model/model.js";
import type { FilesInput } from "./files.js";
import { type OpenOptions, openModel } from "./load.js";

/** Where a model goes. */
export interface LoadOptions extends OpenOptions {
  readonly backend: Backend;
  /**
   * What the matrices of linear layers, the embedding and the head are stored as on the backend, whatever the file
   * holds; `f32` by default. Norms, biases and positions stay f32, and matrices whose rows are no multiple of 32
   * become f16 where `q8_0` or `q4_0` is asked for. Stored weights cannot be trained, adapters over them can.
   */
  readonly dtype?: WeightType;
}

/**
 * Loads a model: a Hugging Face folder or a llama2.c `.bin`, from a path (Node) or from files in memory.
 * @throws FormatError where the files are malformed, UnsupportedError for what this engine does not implement,
 * RangeError for an unknown `dtype` or a weight that it cannot hold
 */
export async function loadModel(
  input: FilesInput,
  { backend, dtype = "f32", ...options }: LoadOptions,
): Promise<Model> {
  if (!WEIGHT_TYPES.includes(dtype)) {
    throw new RangeError(`dtype must be ${WEIGHT_TYPES.join(", ")}, got '${dtype}'`);
  }
  const file = await openModel(input, options);
  try {
    return await Model.load(backend, file.config, file.tokenizer, (name) => file.weight(name), dtype);
  } finally {
    await file.close();
  }
}
