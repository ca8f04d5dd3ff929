import { FormatError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import type { ChatTemplate, Tokenizer } from "../tokenizer.js";
import { readChatSource } from "./chat-source.js";
import { type FilesInput, openFiles } from "./files.js";
import { openGguf } from "./gguf.js";
import { ggufTokenizer } from "./gguf-tokenizer.js";
import { type GgufVocabulary, namedTokens, readGgufVocabulary, specialNames } from "./gguf-vocabulary.js";
import { type GgufModel, metadataFields, openGgufModel } from "./gguf-weights.js";
import { openHuggingFace } from "./hf.js";
import { type Fields, parseObject } from "./json.js";
import { openLlama2c } from "./llama2c.js";
import { readLlama2cTokenizer } from "./llama2c-tokenizer.js";
import type { ByteSource, ModelFiles } from "./source.js";
import type { FetchOptions } from "./url-files.js";
import type { WeightReader } from "./weights.js";

/** An open model, whatever its format. */
export interface ModelFile extends WeightReader {
  readonly tokenizer: Tokenizer | null;
  /** For people: architecture, sizes, and where it came from. */
  readonly description: string;
}

export interface OpenOptions extends FetchOptions {
  /** The tokenizer's file where it is not with the model: a `tokenizer.json`, one of llama2.c, or a `.gguf`. */
  readonly tokenizer?: FilesInput;
}

/**
 * Opens a model: a Hugging Face folder, a `.gguf` or a llama2.c `.bin`, from a path, a URL or files in memory.
 * Weights are read when they are asked for; `close` lets the files go.
 * Throws FormatError where the files are malformed, UnsupportedError for what this engine does not implement.
 */
export async function openModel(input: FilesInput, options: OpenOptions = {}): Promise<ModelFile> {
  const files = await openFiles(input, options);
  const weights = await openWeights(files);
  try {
    return {
      ...weights,
      tokenizer: await openTokenizer(files, weights, options),
      description: describe(weights.config, files.name),
    };
  } catch (error) {
    await weights.close();
    throw error;
  }
}

async function openWeights(files: ModelFiles): Promise<WeightReader | GgufModel> {
  const single = findSingle(files);
  if (single === null) {
    if (!files.has("config.json"))
      throw new FormatError(files.name, "is not a model: it holds no config.json");
    return openHuggingFace(files);
  }
  const isGguf = isGgufName(single);
  if (!isGguf && !/\.bin$/i.test(single)) {
    const expected = "expected a folder with config.json, a .gguf file, or a .bin file of llama2.c";
    throw new FormatError(files.describe(single), `is not a model: ${expected}`);
  }
  const source = await files.open(single);
  try {
    return await (isGguf ? openGgufModel(source) : openLlama2c(source));
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Whether a file's name says that it is GGUF. */
export function isGgufName(name: string): boolean {
  return /\.gguf$/i.test(name);
}

/** The model's file where it is a single one, else null. */
function findSingle(files: ModelFiles): string | null {
  if (files.main !== null && files.main !== "config.json") return files.main;
  if (files.has("config.json")) return null;
  const isTokenizer = (name: string) => /^tok(enizer|\d+)\.bin$/.test(name);
  const models = files.names.filter((name) => /\.(bin|gguf)$/i.test(name) && !isTokenizer(name));
  const [first = null] = models;
  if (models.length > 1) throw new FormatError(files.name, `holds several models: ${models.join(", ")}`);
  return first;
}

async function openTokenizer(
  files: ModelFiles,
  weights: WeightReader | GgufModel,
  { tokenizer: given, ...options }: OpenOptions,
): Promise<Tokenizer | null> {
  const { config } = weights;
  if (given === undefined && "fields" in weights) return tokenizerOf(weights.fields, config);
  const other = given === undefined ? undefined : await openFiles(given, options);
  const place = locateTokenizer(files, config, other);
  return place ? readTokenizer(place.files, place.name, config) : null;
}

/**
 * Where the tokenizer of a model is, undefined where it has none.
 * @param other the files that hold it where it is not with the model
 * @throws FormatError where those hold none
 */
export function locateTokenizer(
  files: ModelFiles,
  config: ModelConfig,
  other?: ModelFiles,
): { readonly files: ModelFiles; readonly name: string } | undefined {
  if (other) {
    const name = other.main ?? findTokenizer(other, ["tokenizer.json", ...llama2cNames(config)]);
    if (name === undefined) throw new FormatError(other.name, "holds no tokenizer");
    return { files: other, name };
  }
  const single = findSingle(files);
  if (single !== null && isGgufName(single)) return { files, name: single };
  const name = findTokenizer(files, single === null ? ["tokenizer.json"] : llama2cNames(config));
  return name === undefined ? undefined : { files, name };
}

/** That of a GGUF file's metadata, null where it has none. */
async function tokenizerOf(metadata: Fields, config: ModelConfig): Promise<Tokenizer | null> {
  const vocabulary = readGgufVocabulary(metadata);
  if (!vocabulary) return null;
  const { file } = metadata;
  const chat = await ggufChat(metadata, vocabulary);
  return expectFits(await ggufTokenizer(vocabulary, file, chat), config, file);
}

/** The template of a GGUF file's vocabulary, undefined where it has none. */
async function ggufChat(metadata: Fields, vocabulary: GgufVocabulary): Promise<ChatTemplate | undefined> {
  if (vocabulary.chatTemplate === null) return undefined;
  const { chatTemplate } = await import("./chat-template.js");
  const source = { template: vocabulary.chatTemplate, file: metadata.file };
  return chatTemplate(source, namedTokens(metadata, vocabulary), specialNames(vocabulary));
}

function findTokenizer(files: ModelFiles, names: readonly string[]): string | undefined {
  return names.find((name) => files.has(name));
}

/** What llama2.c's scripts call a tokenizer; a name with the size of the vocabulary is the surer one. */
function llama2cNames({ vocabSize }: ModelConfig): string[] {
  return [`tok${vocabSize}.bin`, "tokenizer.bin"];
}

async function readTokenizer(files: ModelFiles, name: string, config: ModelConfig): Promise<Tokenizer> {
  const file = files.describe(name);
  if (isGgufName(name)) return readGgufTokenizer(await files.open(name), config);
  if (!name.endsWith(".json")) return readLlama2cTokenizer(await files.open(name), config.vocabSize);

  const json = parseObject(await files.text(name), file);
  const settings = "tokenizer_config.json";
  const settingsJson = files.has(settings)
    ? parseObject(await files.text(settings), files.describe(settings))
    : {};
  const source = await readChatSource(files, settingsJson);
  // The libraries come only with a model that needs them.
  const makeChat = source && (await import("./chat-template.js")).chatTemplate;
  const { huggingFaceTokenizer } = await import("./hf-tokenizer.js");
  const tokenizer = huggingFaceTokenizer(
    json,
    settingsJson,
    file,
    makeChat && ((specials) => makeChat(source, settingsJson, specials)),
  );
  return expectFits(tokenizer, config, file);
}

/** That of another GGUF file, whose model may be any, or none. */
async function readGgufTokenizer(source: ByteSource, config: ModelConfig): Promise<Tokenizer> {
  try {
    const tokenizer = await tokenizerOf(metadataFields(await openGguf(source)), config);
    if (!tokenizer) throw new FormatError(source.name, "holds no tokenizer");
    return tokenizer;
  } finally {
    await source.close();
  }
}

function expectFits(tokenizer: Tokenizer, { vocabSize }: ModelConfig, file: string): Tokenizer {
  for (let id = vocabSize; id < tokenizer.vocabSize; id++) {
    // Special tokens out of the model's reach are common and harmless: text never becomes one.
    if (tokenizer.bytes(id).length > 0) {
      throw new FormatError(file, `has a token ${id}, but the model's vocabulary is ${vocabSize}`);
    }
  }
  return tokenizer;
}

function describe(config: ModelConfig, name: string): string {
  const { architecture, layers, hiddenSize, vocabSize, contextLength } = config;
  return `${architecture}, ${layers} layers of ${hiddenSize}, ${vocabSize} tokens, context ${contextLength}: ${name}`;
}
