import { FormatError, UnsupportedError } from "../errors.js";
import { Fields } from "../formats/json.js";
import { type AdapterData, FACTS, readAdapter, type TrainedRows } from "../formats/peft.js";
import type { ModelFiles } from "../formats/source.js";
import type { ModelConfig } from "../model/config.js";
import { expectBase, type KnownFacts, type ReadWeight, readFacts } from "./facts.js";

/** A PEFT adapter that holds a red flag: the values of its rows, and what is known of them. */
export interface FlagAdapter extends AdapterData {
  readonly rows: TrainedRows;
  readonly known: KnownFacts;
}

/**
 * Reads an adapter for a base of that configuration. One without our facts (written by PEFT) has the defaults for
 * what it doesn't say.
 * @param read gives the values of the base's weights
 * @throws FormatError where the files are malformed, are for another base, or hold no flag; UnsupportedError where
 * they hold several rows and don't say what these are for
 */
export async function readFlagAdapter(
  files: ModelFiles,
  config: ModelConfig,
  read: ReadWeight,
): Promise<FlagAdapter> {
  const data = await readAdapter(files, config);
  const { rows } = data;
  if (!rows || rows.ids.length === 0) {
    throw new FormatError(
      files.name,
      "has no trained token row (trainable_token_indices): it holds no red flag",
    );
  }
  const known = readFacts(new Fields(files.describe(FACTS), data.facts ?? {}));
  if (known.base) await expectBase(config, read, known, files.name);
  const count = rows.ids.length;
  if (count !== Math.max(1, known.categories.length)) {
    throw new UnsupportedError(
      `${files.name}: trains ${count} token rows, but tells of ${known.categories.length} categories; ` +
        "a red flag has one row, or one for each category",
    );
  }
  const id = known.id ?? (rows.ids[0] as number);
  if (rows.ids[0] !== id) {
    throw new FormatError(files.name, `says that the flag is token ${id}, but has the row of ${rows.ids[0]}`);
  }
  return { ...data, rows, known };
}
