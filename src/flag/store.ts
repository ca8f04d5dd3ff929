import { FormatError, UnsupportedError } from "../errors.js";
import { type FilesInput, openFiles } from "../formats/files.js";
import { Fields } from "../formats/json.js";
import {
  type AdapterData,
  type LoraFactors,
  moduleName,
  readAdapter,
  updateFacts,
  writeAdapter,
} from "../formats/peft.js";
import { type Adapter, RowOverlay, type RowValues } from "../model/adapter.js";
import { linearLayers } from "../model/config.js";
import type { Model } from "../model/model.js";
import { type Calibration, type CalibrationFacts, calibrationFacts, readCalibration } from "./calibration.js";
import { selfTest } from "./self-test.js";
import { FlaggedModel, initialRows, type RowInit } from "./vocab.js";

/** Our own facts beside PEFT's files, in `oriflamme.json`. */
interface Facts {
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

/**
 * Writes the flag as a PEFT adapter folder, beside its place and then renamed. Node only.
 * @throws FormatError naming the file that cannot be written, TypeError for a flag that was never trained
 */
export async function saveRedFlag(flagged: FlaggedModel, path: string): Promise<void> {
  const { adapter, model } = flagged;
  if (!adapter) throw new TypeError("save: the flag has no adapter; train it first");
  const lora = new Map<string, LoraFactors>();
  for (const name of adapter.config.targets) {
    const { a, b } = adapter.lora(name) ?? {};
    if (a && b) lora.set(name, { a: await a.read(), b: await b.read() });
  }
  const input = await adapter.rows.input.read();
  const output = model.config.tied ? input : await adapter.rows.output.read();
  const facts = await factsOf(flagged);
  const { rank, alpha, dropout = 0 } = adapter.config;
  const rows = { ids: [...adapter.rows.ids], input, output };
  const targets = [...new Set(adapter.config.targets.map((name) => moduleName(model.config, name)))];
  await writeAdapter(path, { rank, alpha, dropout, targets, lora, rows, facts: { ...facts } }, model.config);
}

/**
 * Writes a calibration into the `oriflamme.json` of an adapter folder; what else it tells stays. Node only.
 * @throws FormatError naming the file that cannot be read or written
 */
export async function saveCalibration(path: string, calibration: Calibration): Promise<void> {
  await updateFacts(path, { calibration: calibrationFacts(calibration) });
}

async function factsOf(flagged: FlaggedModel): Promise<Facts> {
  const { model, calibration } = flagged;
  return {
    version: 1,
    token: flagged.token,
    id: flagged.flagId,
    categories: flagged.categories,
    init: flagged.init,
    seed: flagged.seed,
    vocabSize: model.config.vocabSize,
    base: await probe(model),
    calibration: calibration && calibrationFacts(calibration),
  };
}

/**
 * Loads a flag from a PEFT adapter folder over its base, and tests that the trained row is really in the head.
 * Adapters without our facts (written by PEFT) are taken with the defaults for what they don't say.
 * @throws FormatError where the files are malformed, are for another base, or hold no flag; UnsupportedError where
 * they hold several rows and don't say what these are for
 */
export async function loadRedFlag(model: Model, input: FilesInput): Promise<FlaggedModel> {
  const files = await openFiles(input);
  const data = await readAdapter(files, model.config);
  if (!data.rows || data.rows.ids.length === 0) {
    throw new FormatError(
      files.name,
      "has no trained token row (trainable_token_indices): it holds no red flag",
    );
  }
  const facts = readFacts(new Fields(files.describe("oriflamme.json"), data.facts ?? {}));
  if (facts.base) await expectBase(model, facts, files.name);
  const count = data.rows.ids.length;
  if (count !== Math.max(1, facts.categories.length)) {
    throw new UnsupportedError(
      `${files.name}: trains ${count} token rows, but tells of ${facts.categories.length} categories; ` +
        "a red flag has one row, or one for each category",
    );
  }
  const id = facts.id ?? (data.rows.ids[0] as number);
  if (data.rows.ids[0] !== id) {
    throw new FormatError(
      files.name,
      `says that the flag is token ${id}, but has the row of ${data.rows.ids[0]}`,
    );
  }
  const flagged = await withInitialRows(model, data.rows.ids, facts);
  try {
    const targets = linearLayers(model.config).filter((name) => data.lora.has(name));
    const { rank, alpha, dropout } = data;
    const adapter = flagged.attach({ rank, alpha, targets, ...(dropout ? { dropout } : {}) }, 0);
    fillAdapter(adapter, data, data.rows);
    await selfTest(flagged, files.name);
    return flagged;
  } catch (error) {
    flagged.dispose();
    throw error;
  }
}

/** Our facts as a file has them: any may be missing. */
type KnownFacts = Partial<Omit<Facts, "calibration">> &
  Pick<Facts, "categories" | "seed"> & { readonly calibration: Calibration | null };

function readFacts(fields: Fields): KnownFacts {
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
async function withInitialRows(
  model: Model,
  ids: readonly number[],
  { token = "<rf>", init = "mean", calibration = null, categories, seed }: KnownFacts,
): Promise<FlaggedModel> {
  const initial = await initialRows(model, ids, init, seed);
  const reference = new RowOverlay(model, initial);
  return new FlaggedModel(model, token, init, initial, reference, calibration, categories, seed);
}

function fillAdapter(adapter: Adapter, data: AdapterData, rows: RowValues): void {
  for (const name of adapter.config.targets) {
    const { a, b } = adapter.lora(name) ?? {};
    const values = data.lora.get(name);
    if (a && b && values) {
      a.write(values.a);
      b.write(values.b);
    }
  }
  adapter.rows.input.write(rows.input);
  if (adapter.rows.output !== adapter.rows.input) adapter.rows.output.write(rows.output);
}

/** Weights spread over the first linear layer. */
async function probe(model: Model): Promise<number[]> {
  const [first = ""] = linearLayers(model.config);
  const values = await model.weight(`${first}.weight`).read();
  return Array.from({ length: PROBES }, (_, i) => values[Math.floor((i * values.length) / PROBES)] as number);
}

async function expectBase(model: Model, { base = [], vocabSize }: KnownFacts, file: string): Promise<void> {
  if (vocabSize !== model.config.vocabSize) {
    throw new FormatError(
      file,
      `is for another base: its vocabulary has ${vocabSize} tokens, this model's ${model.config.vocabSize}`,
    );
  }
  const found = await probe(model);
  const norm = (values: readonly number[]) => Math.hypot(...values);
  const distance = norm(found.map((value, i) => value - (base[i] as number)));
  if (!(distance <= PROBE_DISTANCE * norm(base))) {
    throw new FormatError(
      file,
      "is for another base: the weights that it was trained over are not this model's",
    );
  }
}
