import { UnsupportedError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import { architectureOf } from "./hf-architectures.js";
import { expectNoStrangeFields } from "./hf-fields.js";
import { Fields, parseObject } from "./json.js";

/**
 * Reads the text of `config.json`, and of `generation_config.json` where there is one, whose ids of special tokens
 * take precedence as they do in transformers.
 * Throws FormatError naming the file and the field, UnsupportedError naming the field that is not implemented.
 */
export function parseHuggingFaceConfig(
  text: string,
  file: string,
  generation?: { readonly text: string; readonly file: string },
): ModelConfig {
  const fields = new Fields(file, parseObject(text, file));
  const modelType = fields.string("model_type");
  const architecture = architectureOf(modelType, file);
  if (fields.has("quantization_config")) {
    throw new UnsupportedError(
      `${file}: 'quantization_config': the weights are quantised in a way of their own`,
    );
  }
  expectNoStrangeFields(fields);
  const config = architecture.read(fields);

  const generationFields =
    generation && new Fields(generation.file, parseObject(generation.text, generation.file));
  const sources = [generationFields, fields].filter((source) => source !== undefined);
  const bos = sources.find((source) => source.has("bos_token_id"));
  const eos = sources.find((source) => source.has("eos_token_id"));
  // Defaults of tiny models name ids that their vocabulary has not: these can neither be fed nor come out.
  const inVocabulary = (id: number) => id < config.vocabSize;
  const bosId = bos?.integer("bos_token_id", { least: 0 }) ?? null;
  return {
    architecture: modelType,
    ...config,
    bosId: bosId !== null && inVocabulary(bosId) ? bosId : null,
    eosIds: eos ? readIds(eos, "eos_token_id").filter(inVocabulary) : [],
  };
}

/** One id or a list of them. */
function readIds(fields: Fields, name: string): number[] {
  const value = fields.get(name);
  if (!Array.isArray(value)) return [fields.integer(name, { least: 0 })];
  if (!value.every((id) => Number.isInteger(id) && id >= 0)) {
    fields.fail(name, `must be an id or a list of ids, got ${JSON.stringify(value)}`);
  }
  return value;
}

/** How the values of a saved model are stored. */
export type SavedType = "f32" | "f16" | "bf16";

/**
 * The object for `config.json`, with the fields of transformers 4 and 5 side by side.
 * Throws UnsupportedError where Hugging Face has no such architecture.
 */
export function huggingFaceConfig(
  config: ModelConfig,
  { dtype = "f32" }: { readonly dtype?: SavedType } = {},
): Record<string, unknown> {
  const architecture = architectureOf(config.architecture, "model");
  const name = { f32: "float32", f16: "float16", bf16: "bfloat16" }[dtype];
  return {
    architectures: [architecture.className],
    model_type: config.architecture,
    ...architecture.write(config),
    ...specialIds(config),
    dtype: name,
    torch_dtype: name,
    use_cache: true,
  };
}

/** The object for `generation_config.json`. */
export function generationConfig(config: ModelConfig): Record<string, unknown> {
  return { _from_model_config: true, ...specialIds(config) };
}

function specialIds({ bosId, eosIds }: ModelConfig): Record<string, unknown> {
  return { bos_token_id: bosId, eos_token_id: eosIds.length > 1 ? eosIds : (eosIds[0] ?? null) };
}
