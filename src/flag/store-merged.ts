import { FormatError } from "../errors.js";
import { Fields, parseObject } from "../formats/json.js";
import { FACTS } from "../formats/peft.js";
import type { ModelFiles } from "../formats/source.js";
import type { Model } from "../model/model.js";
import type { CalibrationFacts } from "./calibration.js";
import { readFacts, withInitialRows } from "./facts.js";
import { readIds } from "./store-full.js";
import type { FlaggedModel } from "./vocab.js";

/** What `oriflamme.json` tells of an exported model: other engines need the ids and the level. */
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

/** Whether a folder is what `exportModel` wrote. Throws FormatError where its facts are no JSON object. */
export async function isExport(files: ModelFiles): Promise<boolean> {
  if (!files.has(FACTS)) return false;
  return parseObject(await files.text(FACTS), files.describe(FACTS)).method === "merged";
}

/**
 * The flag of an exported model, whose rows are among those of its vocabulary already. The model is its own reference.
 * @throws FormatError where the files are malformed, hold no flag, or tell of one that this model has not
 */
export async function loadMerged(model: Model, files: ModelFiles): Promise<FlaggedModel> {
  const where = files.describe(FACTS);
  const fields = new Fields(where, parseObject(await files.text(FACTS), where));
  const known = readFacts(fields);
  const ids = readIds(fields, known);
  const beyond = ids.find((id) => id >= model.config.vocabSize);
  if (beyond !== undefined) {
    throw new FormatError(
      where,
      `is of another model: flag ${beyond} with a vocabulary of ${model.config.vocabSize}`,
    );
  }
  return withInitialRows(model, ids, { ...known, init: "reserved" });
}
