import { applyEdits, modify } from "jsonc-parser";
import type { WeightSource } from "../model/merge.js";
import { type NewToken, withAddedTokens, withSpecialTokens } from "./hf-added-tokens.js";
import { generationConfig, huggingFaceConfig } from "./hf-config.js";
import { isWeightFile, savedType, type WeightFilesOptions, weightFiles } from "./hf-weights-write.js";
import { parseObject } from "./json.js";
import type { ModelFiles } from "./source.js";
import type { FileContent } from "./write.js";

/** Files that go along as they are: how to generate, how to lay out a chat, older tokenizers, the licence. */
const CARRIED = [
  "generation_config.json",
  "chat_template.jinja",
  "chat_template.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
];
/** Files that name the new tokens. */
const TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];
const LICENCE = /^(licen[cs]e|notice|use_policy)\b/i;

/** Whether a file may be one of those that `huggingFaceExport` makes, and would be taken for part of another model. */
export function isExportFile(name: string): boolean {
  return isWeightFile(name) || CARRIED.includes(name) || TOKENIZER.includes(name);
}

/** The base model's files. */
export interface BaseFiles {
  /** Of the model: what its `config.json` says beyond our configuration stays as it is. */
  readonly model: ModelFiles;
  /** Those that the tokenizer is among, where it is not with the model. */
  readonly tokenizer?: ModelFiles | undefined;
}

/**
 * The files of a Hugging Face folder for a model that was made from another: weights, configuration, and that one's
 * tokenizer with the new tokens in it. There is none where the base has no `tokenizer.json`.
 * Throws FormatError where a file of the base is malformed, or has another token of a new one's name.
 */
export async function huggingFaceExport(
  source: WeightSource,
  tokens: readonly NewToken[],
  { model, tokenizer = modelFolder(model) }: BaseFiles,
  options: WeightFilesOptions = {},
): Promise<Map<string, FileContent>> {
  const { config } = source;
  const files = weightFiles(source, options);
  const dtype = options.dtype ?? savedType(source.weight("embed.weight").dtype);
  const ours = huggingFaceConfig(config, { dtype });
  const { vocab_size, dtype: type, torch_dtype } = ours;
  const folder = modelFolder(model);
  files.set(
    "config.json",
    folder?.has("config.json")
      ? withFields(await folder.text("config.json"), { vocab_size, dtype: type, torch_dtype })
      : json(ours),
  );
  files.set("generation_config.json", json(generationConfig(config)));
  for (const from of new Set([folder, tokenizer].filter((from) => from !== undefined))) {
    for (const name of from.names.filter((name) => CARRIED.includes(name) || LICENCE.test(name))) {
      files.set(name, await from.text(name));
    }
  }
  if (tokenizer) for (const [name, file] of await tokenizerFiles(tokenizer, tokens)) files.set(name, file);
  return files;
}

/** The files of a model folder; undefined for a single file, beside which those of any other model may lie. */
function modelFolder(files: ModelFiles): ModelFiles | undefined {
  return files.main === null || files.main === "config.json" ? files : undefined;
}

async function tokenizerFiles(
  from: ModelFiles,
  tokens: readonly NewToken[],
): Promise<Map<string, FileContent>> {
  const files = new Map<string, FileContent>();
  const main = from.main === null || from.main === "config.json" ? "tokenizer.json" : from.main;
  if (!from.has(main) || !main.endsWith(".json")) return files;
  const edit = async (
    name: string,
    change: (json: Record<string, unknown>) => object,
    written: string = name,
  ) => {
    if (!from.has(name)) return;
    // As it is where nothing is added: readers of other kinds may mind what a rewriting loses.
    files.set(
      written,
      tokens.length === 0 ? await from.text(name) : json(change(await readJson(from, name))),
    );
  };
  await edit(main, (found) => withAddedTokens(found, tokens, from.describe(main)), "tokenizer.json");
  await edit("tokenizer_config.json", (found) => withSpecialTokens(found, tokens));
  await edit("special_tokens_map.json", (found) => withSpecialTokens(found, tokens));
  // What older files have in place of a list in the tokenizer's own.
  await edit("added_tokens.json", (found) => {
    const ids = new Set<unknown>(tokens.map(({ id }) => id));
    const kept = Object.entries(found).filter(([, id]) => !ids.has(id));
    return Object.fromEntries([...kept, ...tokens.map(({ id, content }) => [content, id])]);
  });
  return files;
}

/**
 * JSON with some fields of its object set. The rest stays to the letter: JavaScript would write 32.0 as 32, and there
 * are readers who insist on the point.
 */
function withFields(text: string, fields: Readonly<Record<string, unknown>>): string {
  const formattingOptions = { insertSpaces: true, tabSize: 2 };
  return Object.entries(fields).reduce(
    (edited, [name, value]) => applyEdits(edited, modify(edited, [name], value, { formattingOptions })),
    text,
  );
}

async function readJson(files: ModelFiles, name: string): Promise<Record<string, unknown>> {
  return parseObject(await files.text(name), files.describe(name));
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
