import type { Backend } from "../backend.js";
import { type KeptType, WEIGHT_TYPES } from "../dtype.js";
import type { LoadProgress } from "../model/fill-weights.js";
import { Model } from "../model/model.js";
import type { FilesInput } from "./files.js";
import { type OpenOptions, openModel } from "./load.js";

/** Where a model goes. */
export interface LoadOptions extends OpenOptions {
  readonly backend: Backend;
  /**
   * What the matrices of linear layers, the embedding and the head are kept as on the backend: as the file stores
   * them by default, or all as one type. Norms, biases and positions become f32, and matrices whose rows are no
   * multiple of 32 f16 where `q8_0` or `q4_0` is asked for. Only f32 weights can be trained themselves, adapters over
   * any.
   */
  readonly dtype?: KeptType;
  /** Called as weights come in, whatever their file; see `onDownload` for what is fetched. */
  readonly onProgress?: (progress: LoadProgress) => void;
}

/**
 * Loads a model: a Hugging Face folder, a `.gguf` or a llama2.c `.bin`, from a path (Node), URLs, or files in memory.
 * @throws FormatError where the files are malformed, UnsupportedError for what this engine does not implement,
 * the signal's reason,
 * RangeError for an unknown `dtype` or a weight that it cannot hold
 */
export async function loadModel(
  input: FilesInput,
  { backend, dtype = "stored", onProgress, ...options }: LoadOptions,
): Promise<Model> {
  if (dtype !== "stored" && !WEIGHT_TYPES.includes(dtype)) {
    throw new RangeError(`dtype must be stored, ${WEIGHT_TYPES.join(", ")}, got '${dtype}'`);
  }
  const file = await openModel(input, options);
  try {
    const weightOf = (name: string) => file.weight(name);
    return await Model.load(backend, file.config, file.tokenizer, weightOf, dtype, onProgress);
  } finally {
    await file.close();
  }
}
