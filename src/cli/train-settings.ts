import type { GivenHyperparameters } from "../eval/grid.js";
import { RED_FLAG_DEFAULTS, type RedFlagHyperparameters } from "../flag/train.js";
import type { RedFlagOptions, RowInit } from "../flag/vocab.js";
import { readConfig } from "./config-file.js";

/** What --config may set: hyperparameters, and how the flag enters the vocabulary; see `RedFlagOptions`. */
interface TrainSettings extends RedFlagHyperparameters {
  readonly token: string;
  readonly categories: readonly string[];
  readonly init: RowInit;
  /** The token to reuse, or one for each category; none appends. */
  readonly reuse: readonly (string | number)[];
}

const TRAIN_DEFAULTS: TrainSettings = {
  ...RED_FLAG_DEFAULTS,
  token: "<rf>",
  categories: [],
  init: "mean",
  reuse: [],
};

/**
 * Reads the --config of commands that train a flag; without one, nothing is set.
 * @throws FormatError naming the file and the field
 */
export async function readTrainSettings(
  path: string | undefined,
): Promise<{ readonly flag: RedFlagOptions; readonly given: GivenHyperparameters }> {
  const { token, categories, init, reuse, ...given } = await readConfig(path, TRAIN_DEFAULTS);
  const flag = {
    ...(token === undefined ? {} : { token }),
    ...(categories === undefined ? {} : { categories }),
    ...(init === undefined ? {} : { init }),
    ...(reuse?.length ? { reuse } : {}),
  };
  return { flag, given };
}
