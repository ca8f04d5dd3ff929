import { FormatError } from "../errors.js";
import type { Fields } from "../formats/json.js";
import { RowOverlay } from "../model/adapter.js";
import { linearLayers, type ModelConfig } from "../model/config.js";
import type { Model } from "../model/model.js";
import { type Calibration, type CalibrationFacts, calibrationFacts, readCalibration } from "./calibration.js";
import { FlaggedModel, initialRows, type RowInit } from "./vocab.js";

/** Our own facts beside the files of a format, in `oriflamme.json`. */
export interface Facts {
  readonly version: 1;
  /** The flag's text and id; with categories, the id of the first. */
  readonly token: string;
  readonly id: number;
  /** The category of each trained row, in the order of the rows; empty where one flag stands for all. */
  readonly categories: readonly string[];
  /** How the rows began: the reference of the divergences. */
  readonly init: RowInit;
  /** Of `normal(std)`. */
  readonly seed: number;
  /** Rows of the base's vocabulary, and some of its weights, to know it again. */
  readonly vocabSize: number;
  readonly base: readonly number[];
  readonly calibration: CalibrationFacts | null;
}

/** Numbers that are taken from the base to know it again. */
const PROBES = 32;
/**
 * Largest relative distance of the probes. Storing weights in 4 bits moves each by up to 1/16 of its block's largest,
 * about a tenth of their length in all; another model's weights are farther away than they are long.
 */
const PROBE_DISTANCE = 0.3;

/** What there is to know of a flag besides its values. */
export async function factsOf(flagged: FlaggedModel): Promise<Facts> {
  const { model, calibration } = flagged;
  return {
    version: 1,
    token: flagged.token,
    id: flagged.flagId,
    categories: flagged.categories,
    init: flagged.init,
    seed: flagged.seed,
    vocabSize: model.config.vocabSize,
    base: await probe(model.config, weightsOf(model)),
    calibration: calibration && calibrationFacts(calibration),
  };
}

/** Our facts as a file has them: any may be missing. */
export type KnownFacts = Partial<Omit<Facts, "calibration">> &
  Pick<Facts, "categories" | "seed"> & { readonly calibration: Calibration | null };

/** @throws FormatError naming the field that is malformed */
export function readFacts(fields: Fields): KnownFacts {
  const base = fields.get("base");
  const isList =
    Array.isArray(base) && base.length === PROBES && base.every((value) => Number.isFinite(value));
  if (base !== undefined && !isList) fields.fail("base", `must be a list of ${PROBES} numbers`);
  const calibration = fields.object("calibration");
  const categories = fields.get("categories") ?? [];
  const isNames = Array.isArray(categories) && categories.every((name) => typeof name === "string");
  if (!isNames) fields.fail("categories", "must be a list of names");
  return {
    ...(fields.has("token") ? { token: fields.string("token") } : {}),
    ...(fields.has("id") ? { id: fields.integer("id", { least: 0 }) } : {}),
    ...(fields.has("init") ? { init: fields.string("init") as RowInit } : {}),
    seed: fields.integer("seed", {
      least: Number.MIN_SAFE_INTEGER,
      most: Number.MAX_SAFE_INTEGER,
      fallback: 0,
    }),
    categories,
    ...(isList ? { base, vocabSize: fields.integer("vocabSize") } : {}),
    calibration: calibration && readCalibration(calibration),
  };
}

/** The flag before training, as the facts tell it. */
export async function withInitialRows(
  model: Model,
  ids: readonly number[],
  { token = "<rf>", init = "mean", calibration = null, categories, seed }: KnownFacts,
): Promise<FlaggedModel> {
  const initial = await initialRows(model, ids, init, seed);
  const reference = new RowOverlay(model, initial);
  return new FlaggedModel(model, token, init, initial, reference, calibration, categories, seed);
}

/** The values of a weight, by its name. */
export type ReadWeight = (name: string) => Promise<Float32Array>;

/** The weights of a model as `probe` and `expectBase` read them. */
export function weightsOf(model: Model): ReadWeight {
  return (name) => model.weight(name).read();
}

/** Weights spread over the first linear layer. */
export async function probe(config: ModelConfig, read: ReadWeight): Promise<number[]> {
  const [first = ""] = linearLayers(config);
  const values = await read(`${first}.weight`);
  return Array.from({ length: PROBES }, (_, i) => values[Math.floor((i * values.length) / PROBES)] as number);
}

/**
 * @param read gives the values of the model's weights
 * @throws FormatError where the model is not the one that the facts were taken from
 */
export async function expectBase(
  config: ModelConfig,
  read: ReadWeight,
  { base = [], vocabSize }: KnownFacts,
  file: string,
): Promise<void> {
  if (vocabSize !== config.vocabSize) {
    throw new FormatError(
      file,
      `is for another base: its vocabulary has ${vocabSize} tokens, this model's ${config.vocabSize}`,
    );
  }
  const found = await probe(config, read);
  const norm = (values: readonly number[]) => Math.hypot(...values);
  const distance = norm(found.map((value, i) => value - (base[i] as number)));
  if (!(distance <= PROBE_DISTANCE * norm(base))) {
    throw new FormatError(
      file,
      "is for another base: the weights that it was trained over are not this model's",
    );
  }
}
