import { FormatError, UnsupportedError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import type { Tokenizer } from "../tokenizer.js";
import { readChatSource } from "./chat-source.js";
import { type FilesInput, openFiles } from "./files.js";
import { openHuggingFace } from "./hf.js";
import { parseObject } from "./json.js";
import { openLlama2c } from "./llama2c.js";
import { readLlama2cTokenizer } from "./llama2c-tokenizer.js";
import type { ModelFiles } from "./source.js";
import type { WeightReader } from "./weights.js";

/** An open model, whatever its format. */
export interface ModelFile extends WeightReader {
  readonly tokenizer: Tokenizer | null;
  /** For people: architecture, sizes, and where it came from. */
  readonly description: string;
}

export interface OpenOptions {
  /** The tokenizer's file where it is not beside the model: a `tokenizer.json` or one of llama2.c. */
  readonly tokenizer?: FilesInput;
}

/**
 * Opens a model: a Hugging Face folder or a llama2.c `.bin`, from a path or from files in memory. Weights are read
 * when they are asked for; `close` lets the files go.
 * Throws FormatError where the files are malformed, UnsupportedError for what this engine does not implement.
 */
export async function openModel(input: FilesInput, options: OpenOptions = {}): Promise<ModelFile> {
  const files = await openFiles(input);
  const weights = await openWeights(files);
  try {
    return {
      ...weights,
      tokenizer: await openTokenizer(files, weights.config, options.tokenizer),
      description: describe(weights.config, files.name),
    };
  } catch (error) {
    await weights.close();
    throw error;
  }
}

async function openWeights(files: ModelFiles): Promise<WeightReader> {
  const single = findSingle(files);
  if (single === null) {
    if (!files.has("config.json"))
      throw new FormatError(files.name, "is not a model: it holds no config.json");
    return openHuggingFace(files);
  }
  if (/\.gguf$/i.test(single)) {
    throw new UnsupportedError(
      `${files.describe(single)}: GGUF files are not read yet; use a Hugging Face folder`,
    );
  }
  if (!/\.bin$/i.test(single)) {
    const expected = "expected a folder with config.json, a .gguf file, or a .bin file of llama2.c";
    throw new FormatError(files.describe(single), `is not a model: ${expected}`);
  }
  const source = await files.open(single);
  try {
    return await openLlama2c(source);
  } catch (error) {
    await source.close();
    throw error;
  }
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
  config: ModelConfig,
  given: FilesInput | undefined,
): Promise<Tokenizer | null> {
  if (given !== undefined) {
    const other = await openFiles(given);
    const name = other.main ?? findTokenizer(other, ["tokenizer.json", ...llama2cNames(config)]);
    if (name === undefined) throw new FormatError(other.name, "holds no tokenizer");
    return readTokenizer(other, name, config);
  }
  const name = findTokenizer(files, findSingle(files) === null ? ["tokenizer.json"] : llama2cNames(config));
  return name === undefined ? null : readTokenizer(files, name, config);
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
  for (let id = config.vocabSize; id < tokenizer.vocabSize; id++) {
    // Special tokens out of the model's reach are common and harmless: text never becomes one.
    if (tokenizer.bytes(id).length > 0) {
      throw new FormatError(file, `has a token ${id}, but the model's vocabulary is ${config.vocabSize}`);
    }
  }
  return tokenizer;
}

function describe(config: ModelConfig, name: string): string {
  const { architecture, layers, hiddenSize, vocabSize, contextLength } = config;
  return `${architecture}, ${layers} layers of ${hiddenSize}, ${vocabSize} tokens, context ${contextLength}: ${name}`;
}
