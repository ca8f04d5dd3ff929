import { type ModelConfig, weightShapes } from "../model/config.js";
import { generationConfig, huggingFaceConfig, type SavedType } from "./hf-config.js";
import { toHuggingFaceName, transpose } from "./hf-names.js";
import { type TensorData, writeSafetensors } from "./safetensors-write.js";
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
  const dtype = options.dtype ?? "f32";
  const tensors = new Map<string, TensorData>();
  for (const [ours, shape] of weightShapes(config)) {
    const { name, transpose: isTransposed } = toHuggingFaceName(config, ours);
    const [out = 1, input = 1] = shape;
    tensors.set(name, {
      dtype: ({ f32: "F32", f16: "F16", bf16: "BF16" } as const)[dtype],
      shape: isTransposed ? [...shape].reverse() : shape,
      data: async () => (isTransposed ? transpose(await read(ours), out, input) : read(ours)),
    });
  }

  const files = new Map<string, FileContent>();
  files.set("model.safetensors", writeSafetensors(tensors, { format: "pt" }));
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
