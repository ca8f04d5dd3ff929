import type { WeightType } from "../dtype.js";
import { FormatError } from "../errors.js";
import { type FilesInput, openFiles } from "../formats/files.js";
import { withVocabularyTokens } from "../formats/gguf-added-tokens.js";
import { string } from "../formats/gguf-entry.js";
import { writeGguf } from "../formats/gguf-write.js";
import type { SavedType } from "../formats/hf-config.js";
import type { BaseFiles } from "../formats/hf-export.js";
import { savedType } from "../formats/hf-weights-write.js";
import { isGgufName, openModel } from "../formats/load.js";
import { loadVocabulary } from "../formats/load-vocabulary.js";
import { ADAPTER_CONFIG, FACTS, writeAdapter } from "../formats/peft.js";
import type { ModelFiles } from "../formats/source.js";
import type { WeightReader } from "../formats/weights.js";
import { describeTarget, removeFiles, writeFolder } from "../formats/write.js";
import type { Model } from "../model/model.js";
import { readValues } from "../model/stored-weight.js";
import { type MergedModel, mergedFromFiles, mergedInMemory } from "./merged.js";
import { readFlagAdapter } from "./read-adapter.js";
import { saveRedFlag } from "./store.js";
import { GGUF_FACTS, readMergedFacts } from "./store-merged.js";
import { FlaggedModel } from "./vocab.js";

/** What a model is exported as. */
export type ExportFormat = "hf" | "gguf" | "peft";

export const EXPORT_FORMATS: readonly ExportFormat[] = ["hf", "gguf", "peft"];

/** What safetensors files have of the types of weights. */
const SAVED_TYPES: readonly SavedType[] = ["f32", "f16", "bf16"];

export interface ExportOptions {
  /**
   * `hf`: a Hugging Face folder with the adapter merged into the weights and the flag's row in the vocabulary, its
   * token in the tokenizer. `gguf`: the same in one file. `peft`: the adapter by itself, as a PEFT folder.
   */
  readonly to: ExportFormat;
  /** What weights are stored as. By default `hf` keeps the types of the base, and `gguf` has f16. */
  readonly type?: WeightType;
  /** Most bytes of tensors in a file of `hf`; 5 GB by default. */
  readonly shardBytes?: number;
  /** Called with the bytes of weights written so far, and those of all. */
  readonly onProgress?: (written: number, total: number) => void;
}

/** Where a model to export lies. */
export interface ExportFiles {
  /** The base model. */
  readonly model: FilesInput;
  /** What `trainRedFlag` has saved for it. */
  readonly adapter?: FilesInput;
  /** The tokenizer's file where it is not beside the model. */
  readonly tokenizer?: FilesInput;
}

/**
 * Exports a model, or one with its flag, for other engines, from the memory of its backend: weights have the values
 * that they are stored as there, so load it as `f32` for those of the file. Written beside its place, then renamed;
 * what stands at `path` and is no export stays, and the call fails. Node only.
 * @param base the files of the base: its tokenizer, chat template and generation settings go along
 * @throws FormatError naming the file that cannot be read or written, RangeError for a `type` that the format or the
 * values do not allow, TypeError for `peft` of a flag that was never trained
 */
export async function exportModel(
  target: FlaggedModel | Model,
  path: string,
  { base, ...options }: ExportOptions & { readonly base: FilesInput },
): Promise<void> {
  await expectExportTarget(path, options);
  if (options.to === "peft") {
    if (!(target instanceof FlaggedModel) || !target.adapter)
      throw new TypeError("peft: there is no adapter");
    return saveRedFlag(target, path);
  }
  const merged = await mergedInMemory(target);
  const model = target instanceof FlaggedModel ? target.model : target;
  if (options.to === "gguf") return writeGgufModel(merged, path, { model: base }, model, options);
  await writeFolderOf(merged, path, { model: await openFiles(base) }, options);
}

/**
 * The same from files, without loading the model: one piece of a weight is in memory at a time.
 * @throws FormatError naming the file that cannot be read or written, or is for another base; RangeError for a `type`
 * that the format or the values do not allow
 */
export async function exportFiles(
  { model, adapter, tokenizer }: ExportFiles,
  path: string,
  options: ExportOptions,
): Promise<void> {
  await expectExportTarget(path, options);
  const changes = adapter === undefined ? undefined : await openFiles(adapter);
  const base = await openModel(model, tokenizer === undefined ? {} : { tokenizer });
  try {
    if (options.to === "peft") return await writePeft(base, changes, path);
    const merged = await mergedFromFiles(base, changes);
    try {
      if (options.to === "gguf") {
        const from = { model, ...(tokenizer === undefined ? {} : { tokenizer }) };
        return await writeGgufModel(merged, path, from, base, options);
      }
      const own = await openFiles(model);
      const other = tokenizer === undefined ? undefined : await openFiles(tokenizer);
      await writeFolderOf(merged, path, { model: own, tokenizer: other }, options);
    } finally {
      await merged.close();
    }
  } finally {
    await base.close();
  }
}

async function writeFolderOf(
  merged: MergedModel,
  path: string,
  base: BaseFiles,
  { type, shardBytes, onProgress }: ExportOptions,
): Promise<void> {
  const { huggingFaceExport, isExportFile } = await import("../formats/hf-export.js");
  const given = SAVED_TYPES.find((saved) => saved === type);
  const files = await huggingFaceExport(merged, merged.tokens, base, {
    dtype: given ?? ((name) => savedType(merged.typeOf(name))),
    ...(shardBytes === undefined ? {} : { shardBytes }),
    ...(onProgress && { onProgress }),
  });
  files.set(FACTS, `${JSON.stringify(merged.facts, null, 2)}\n`);
  await writeFolder(path, files);
  // Of an export that was there: a single file would be read in place of these shards, or the reverse.
  const { names } = await openFiles(path);
  const stale = names.filter((name) => isExportFile(name) && !files.has(name));
  await removeFiles(path, stale);
}

async function writeGgufModel(
  merged: MergedModel,
  path: string,
  { model, tokenizer }: Omit<ExportFiles, "adapter">,
  base: Pick<Model, "config" | "tokenizer">,
  { type, onProgress }: ExportOptions,
): Promise<void> {
  // The base's own: the names of llama2.c's tokenizers hold its number of tokens.
  const vocabulary = await loadVocabulary(model, base, tokenizer);
  const file = typeof model === "string" ? model : "the base's tokenizer";
  await writeGguf(path, merged, {
    ...(type === undefined ? {} : { type }),
    vocabulary: vocabulary && withVocabularyTokens(vocabulary, merged.tokens, file),
    entries: new Map([[GGUF_FACTS, string(JSON.stringify(merged.facts))]]),
    ...(onProgress && { onProgress }),
  });
}

/** An adapter as PEFT opens it, with our facts beside it. */
async function writePeft(base: WeightReader, adapter: ModelFiles | undefined, path: string): Promise<void> {
  if (!adapter) throw new RangeError("peft: there is no adapter");
  if (!adapter.has(ADAPTER_CONFIG)) {
    throw new FormatError(adapter.name, "is a whole model, no adapter; export it as hf");
  }
  const read = (name: string) => readValues(base.weight(name));
  await writeAdapter(path, await readFlagAdapter(adapter, base.config, read), base.config);
}

/** Throws before any work for options that don't go together, and where something else than an export would be lost. */
async function expectExportTarget(path: string, { to, type }: ExportOptions): Promise<void> {
  if (!EXPORT_FORMATS.includes(to)) {
    throw new RangeError(`to must be ${EXPORT_FORMATS.join(", ")}, got '${to}'`);
  }
  if (to === "peft" && type !== undefined) throw new RangeError("type: an adapter stays f32");
  if (to === "hf" && type !== undefined && !SAVED_TYPES.some((saved) => saved === type)) {
    throw new RangeError(`type: hf has ${SAVED_TYPES.join(", ")}, got '${type}'`);
  }
  const found = await describeTarget(path);
  // A device or a pipe takes what comes.
  if (found === "nothing" || (to === "gguf" && found === "device")) return;
  if (to === "gguf") {
    if (found !== "file") throw new FormatError(path, "cannot be written: it is a folder");
    const isOurs = isGgufName(path) && (await readMergedFacts(await openFiles(path)));
    if (!isOurs) throw new FormatError(path, "is not replaced: it is no exported model");
    return;
  }
  if (found !== "folder") throw new FormatError(path, "cannot be written: it is not a folder");
  const files = await openFiles(path);
  const isReplaceable = to === "peft" ? files.has(ADAPTER_CONFIG) : await readMergedFacts(files);
  if (files.names.length > 0 && !isReplaceable) {
    const what = to === "peft" ? "adapter" : "exported model";
    throw new FormatError(path, `is not replaced: it holds files, but no ${what}`);
  }
}
