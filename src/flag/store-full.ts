import { FormatError } from "../errors.js";
import { openHuggingFace } from "../formats/hf.js";
import { huggingFaceFiles } from "../formats/hf-write.js";
import { Fields, parseObject } from "../formats/json.js";
import { FACTS } from "../formats/peft.js";
import type { ModelFiles } from "../formats/source.js";
import type { WeightReader } from "../formats/weights.js";
import { writeFolder } from "../formats/write.js";
import type { RowValues } from "../model/adapter.js";
import { type ModelConfig, weightShapes } from "../model/config.js";
import { vocabularySize } from "../model/forward.js";
import type { FullTuning } from "../model/full-tuning.js";
import type { Model } from "../model/model.js";
import { readValues } from "../model/stored-weight.js";
import { formatShape } from "../tensor.js";
import {
  expectBase,
  type Facts,
  factsOf,
  type KnownFacts,
  probe,
  type ReadWeight,
  readFacts,
  weightsOf,
  withInitialRows,
} from "./facts.js";
import { selfTest } from "./self-test.js";
import type { FlaggedModel } from "./vocab.js";

/** The facts beside a model whose weights were all trained: a Hugging Face folder has no place for the ids. */
interface FullFacts extends Facts {
  readonly method: "full";
  /** The ids of all flags. */
  readonly ids: readonly number[];
}

/**
 * Writes the model as a Hugging Face folder, the flags' rows among those of its vocabulary, with our facts beside
 * it. The tokenizer's files are the base's.
 */
export async function saveFullTuning(flagged: FlaggedModel, tuning: FullTuning, path: string): Promise<void> {
  const { config } = flagged.model;
  const rows = await rowValues(tuning);
  const merged: ModelConfig = { ...config, vocabSize: vocabularySize(config, tuning) };
  const read = async (name: string) => {
    const values = await tuning.parameters.get(name).read();
    if (name === "embed.weight") return withRows(values, rows.ids, rows.input, merged);
    return name === "head.weight" ? withRows(values, rows.ids, rows.output, merged) : values;
  };
  const facts: FullFacts = { ...(await factsOf(flagged)), method: "full", ids: rows.ids };
  const files = huggingFaceFiles(merged, read);
  files.set(FACTS, `${JSON.stringify(facts, null, 2)}\n`);
  await writeFolder(path, files);
}

async function rowValues({ rows }: FullTuning): Promise<RowValues> {
  const input = await rows.input.read();
  return { ids: rows.ids, input, output: rows.output === rows.input ? input : await rows.output.read() };
}

/** A table of the merged vocabulary: the base's rows, and those of the flags in their places. */
function withRows(
  table: Float32Array,
  ids: readonly number[],
  rows: Float32Array,
  { vocabSize, hiddenSize }: ModelConfig,
): Float32Array {
  const merged = new Float32Array(vocabSize * hiddenSize);
  merged.set(table);
  for (const [i, id] of ids.entries())
    merged.set(rows.subarray(i * hiddenSize, (i + 1) * hiddenSize), id * hiddenSize);
  return merged;
}

/**
 * Loads such a folder over the base that it was trained from, which stays the reference.
 * @throws FormatError where the files are malformed, or are for another base
 */
export async function loadFullTuning(model: Model, files: ModelFiles): Promise<FlaggedModel> {
  const { reader, ids, known } = await openFullTuning(files, model.config, weightsOf(model));
  try {
    return await overBase(model, reader, await withInitialRows(model, ids, known), files.name);
  } finally {
    await reader.close();
  }
}

/** A model whose weights were all trained, open. */
export interface OpenFullTuning {
  /** Its weights, the flags' rows among them. */
  readonly reader: WeightReader;
  /** The ids of all flags. */
  readonly ids: readonly number[];
  readonly known: KnownFacts;
}

/**
 * Opens such a folder for a base of that configuration.
 * @param read gives the values of the base's weights
 * @throws FormatError as `loadFullTuning`
 */
export async function openFullTuning(
  files: ModelFiles,
  config: ModelConfig,
  read: ReadWeight,
): Promise<OpenFullTuning> {
  const where = files.describe(FACTS);
  const fields = new Fields(where, parseObject(await files.text(FACTS), where));
  if (fields.string("method") !== "full") fields.fail("method", "must be 'full' where there is no adapter");
  const known = readFacts(fields);
  const ids = readIds(fields, known);
  await expectBase(config, read, known, files.name);
  const reader = await openHuggingFace(files);
  try {
    expectShapes(config, reader.config, ids, files.name);
    const own = await probe(config, read);
    const tuned = await probe(config, (name) => readValues(reader.weight(name)));
    if (own.join() === tuned.join() && own.join() !== known.base?.join()) {
      throw new FormatError(
        files.name,
        "is laid over itself: the model must be the base that it was trained from",
      );
    }
    return { reader, ids, known };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

async function overBase(
  model: Model,
  reader: WeightReader,
  flagged: FlaggedModel,
  file: string,
): Promise<FlaggedModel> {
  const { vocabSize, hiddenSize: width, tied } = model.config;
  const ids = flagged.flagIds;
  const rowsOf = async (name: string) => {
    const table = await readValues(reader.weight(name));
    return Float32Array.from({ length: ids.length * width }, (_, i) => {
      const id = ids[Math.floor(i / width)] as number;
      return table[id * width + (i % width)] as number;
    });
  };
  try {
    const input = await rowsOf("embed.weight");
    const output = tied ? input : await rowsOf("head.weight");
    await flagged.attachFull({ ids, input, output }, async (name) => {
      const values = await readValues(reader.weight(name));
      const isTable = name === "embed.weight" || name === "head.weight";
      return isTable ? values.subarray(0, vocabSize * width) : values;
    });
    await selfTest(flagged, file);
    return flagged;
  } catch (error) {
    flagged.dispose();
    throw error;
  }
}

/** The ids of all flags, one where there are no categories. */
export function readIds(fields: Fields, { categories }: KnownFacts): number[] {
  const ids = fields.get("ids");
  const isList = Array.isArray(ids) && ids.every((id) => Number.isInteger(id) && id >= 0);
  if (!isList || new Set(ids).size !== ids.length)
    fields.fail("ids", "must be a list of token ids, each once");
  if (ids.length !== Math.max(1, categories.length))
    fields.fail("ids", `are ${ids.length} for ${categories.length} categories`);
  return ids;
}

/** Throws where the saved model has not the weights of the base and the flags' rows. */
function expectShapes(base: ModelConfig, saved: ModelConfig, ids: readonly number[], file: string): void {
  const appended = ids.filter((id) => id >= base.vocabSize).length;
  const beyond = ids.find((id) => id >= base.vocabSize + appended);
  if (beyond !== undefined)
    throw new FormatError(file, `is for another base: flag ${beyond} with a vocabulary of ${base.vocabSize}`);
  const found = weightShapes(saved);
  for (const [name, shape] of weightShapes({ ...base, vocabSize: base.vocabSize + appended })) {
    if (found.get(name)?.join() === shape.join()) continue;
    const problem = `'${name}' has shape ${formatShape(found.get(name) ?? [])}, expected ${formatShape(shape)}`;
    throw new FormatError(file, `is for another base: ${problem}`);
  }
}
