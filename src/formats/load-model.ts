import type { Backend } from "../backend.js";
import { Model } from "../model/model.js";
import type { FilesInput } from "./files.js";
import { type OpenOptions, openModel } from "./load.js";

/** Where a model goes. */
export interface LoadOptions extends OpenOptions {
  readonly backend: Backend;
}

/**
 * Loads a model: a Hugging Face folder or a llama2.c `.bin`, from a path (Node) or from files in memory.
 * @throws FormatError where the files are malformed, UnsupportedError for what this engine does not implement
 */
export async function loadModel(input: FilesInput, { backend, ...options }: LoadOptions): Promise<Model> {
  const file = await openModel(input, options);
  try {
    return await Model.load(backend, file.config, file.tokenizer, (name) => file.read(name));
  } finally {
    await file.close();
  }
}
