import type { ModelConfig } from "../model/config.js";
import { readChatSource } from "./chat-source.js";
import { type FilesInput, openFiles } from "./files.js";
import { openGguf } from "./gguf.js";
import { type GgufVocabulary, readGgufVocabulary } from "./gguf-vocabulary.js";
import { vocabularyOfJson, vocabularyOfLlama2c } from "./gguf-vocabulary-of.js";
import { metadataFields } from "./gguf-weights.js";
import { parseObject } from "./json.js";
import { readLlama2cPieces } from "./llama2c-tokenizer.js";
import { isGgufName, locateTokenizer, type ModelFile } from "./load.js";
import type { ModelFiles } from "./source.js";

/**
 * The tokenizer of a model as a GGUF file is to have it, with its template for conversations; null where it has none.
 * @param input what the model was opened from
 * @param tokenizer the tokenizer's file where it is not with the model
 * @throws FormatError where a file is malformed, UnsupportedError where llama.cpp would make other ids of a text
 */
export async function loadVocabulary(
  input: FilesInput,
  model: Pick<ModelFile, "config" | "tokenizer">,
  tokenizer?: FilesInput,
): Promise<GgufVocabulary | null> {
  const other = tokenizer === undefined ? undefined : await openFiles(tokenizer);
  const place = locateTokenizer(await openFiles(input), model.config, other);
  if (!place) return null;
  const { files, name } = place;
  if (isGgufName(name)) return ggufVocabulary(files, name);
  if (!name.endsWith(".json")) return llama2cVocabulary(files, name, model.config);
  const json = parseObject(await files.text(name), files.describe(name));
  const settings = "tokenizer_config.json";
  const chat = await readChatSource(
    files,
    files.has(settings) ? parseObject(await files.text(settings), files.describe(settings)) : {},
  );
  const bosId = model.tokenizer?.bosId ?? null;
  return vocabularyOfJson(json, bosId, chat?.template ?? null, files.describe(name));
}

async function ggufVocabulary(files: ModelFiles, name: string): Promise<GgufVocabulary | null> {
  const source = await files.open(name);
  try {
    return readGgufVocabulary(metadataFields(await openGguf(source)));
  } finally {
    await source.close();
  }
}

async function llama2cVocabulary(files: ModelFiles, name: string, { vocabSize }: ModelConfig) {
  return vocabularyOfLlama2c(await readLlama2cPieces(await files.open(name), vocabSize));
}
