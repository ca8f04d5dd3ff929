import { type ModelConfig, weightShapes } from "../model/config.js";
import { weightOfValues } from "../model/stored-weight.js";
import { generationConfig, huggingFaceConfig, type SavedType } from "./hf-config.js";
import { weightFiles } from "./hf-weights-write.js";
import { type FileContent, writeFolder } from "./write.js";

export interface HuggingFaceOptions {
  /** How values are stored, f32 where nothing is said. */
  readonly dtype?: SavedType;
  /** The content of `tokenizer.json`. */
  readonly tokenizerJson?: unknown;
  /** The content of `tokenizer_config.json`. */
  readonly tokenizerConfig?: unknown;
}

/**
 * The files of a Hugging Face folder. `read` gives a weight by our name with the shape of `weightShapes(config)`;
 * it is called when the weight is written, one at a time.
 */
export function huggingFaceFiles(
  config: ModelConfig,
  read: (name: string) => Promise<Float32Array>,
  options: HuggingFaceOptions = {},
): Map<string, FileContent> {
  const { dtype = "f32" } = options;
  const shapes = weightShapes(config);
  const weight = (name: string) => weightOfValues(shapes.get(name) ?? [], () => read(name));
  const files = weightFiles({ config, weight }, { dtype });
  files.set("config.json", json(huggingFaceConfig(config, { dtype })));
  files.set("generation_config.json", json(generationConfig(config)));
  if (options.tokenizerJson !== undefined) files.set("tokenizer.json", json(options.tokenizerJson));
  if (options.tokenizerConfig !== undefined)
    files.set("tokenizer_config.json", json(options.tokenizerConfig));
  return files;
}

/**
 * Writes a model as a Hugging Face folder, whole or not at all. Node only.
 * Throws FormatError naming the file that cannot be written, UnsupportedError for an architecture without a row,
 * RangeError where a value is beyond the range of `dtype`.
 */
export async function writeHuggingFace(
  path: string,
  config: ModelConfig,
  read: (name: string) => Promise<Float32Array>,
  options: HuggingFaceOptions = {},
): Promise<void> {
  await writeFolder(path, huggingFaceFiles(config, read, options));
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
