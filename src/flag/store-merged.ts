import { FormatError } from "../errors.js";
import { openGguf } from "../formats/gguf.js";
import { Fields, parseObject } from "../formats/json.js";
import { isGgufName } from "../formats/load.js";
import { FACTS } from "../formats/peft.js";
import type { ModelFiles } from "../formats/source.js";
import type { Model } from "../model/model.js";
import type { CalibrationFacts } from "./calibration.js";
import { readFacts, withInitialRows } from "./facts.js";
import { readIds } from "./store-full.js";
import type { FlaggedModel } from "./vocab.js";

/** What `oriflamme.json`, or the metadata of a GGUF file, tells of an exported model: other engines need the ids and the level. */
export interface MergedFacts {
  readonly version: 1;
  readonly method: "merged";
  /** The flag's text; with categories, what the texts of their flags are made from. */
  readonly token: string;
  /** The category of each flag; empty where one flag stands for all. */
  readonly categories: readonly string[];
  /** The ids of all flags; empty in a model that has none. */
  readonly ids: readonly number[];
  readonly calibration: CalibrationFacts | null;
}

/** The key of the facts in the metadata of a GGUF file. */
export const GGUF_FACTS = "oriflamme.facts";

/**
 * The facts of what `exportModel` wrote, undefined for anything else.
 * @throws FormatError where a file cannot be read, or its facts are no JSON object
 */
export async function readMergedFacts(files: ModelFiles): Promise<Fields | undefined> {
  const found = await factsText(files);
  if (found === undefined) return undefined;
  const values = parseObject(found.text, found.file);
  return values.method === "merged" ? new Fields(found.file, values) : undefined;
}

async function factsText(files: ModelFiles): Promise<{ text: string; file: string } | undefined> {
  if (files.main !== null && isGgufName(files.main)) {
    const source = await files.open(files.main);
    try {
      const text = (await openGguf(source)).metadata.get(GGUF_FACTS);
      return typeof text === "string" ? { text, file: source.name } : undefined;
    } finally {
      await source.close();
    }
  }
  if (files.main !== null || !files.has(FACTS)) return undefined;
  return { text: await files.text(FACTS), file: files.describe(FACTS) };
}

/**
 * The flag of an exported model, whose rows are among those of its vocabulary already. The model is its own reference.
 * @param fields of `readMergedFacts`
 * @throws FormatError where they are malformed, tell of no flag, or of one that this model has not
 */
export async function loadMerged(model: Model, fields: Fields): Promise<FlaggedModel> {
  const known = readFacts(fields);
  const ids = readIds(fields, known);
  const beyond = ids.find((id) => id >= model.config.vocabSize);
  if (beyond !== undefined) {
    throw new FormatError(
      fields.file,
      `is of another model: flag ${beyond} with a vocabulary of ${model.config.vocabSize}`,
    );
  }
  return withInitialRows(model, ids, { ...known, init: "reserved" });
}
