import { FormatError } from "../errors.js";
import { openFiles } from "../formats/files.js";
import { Fields, isObject, parseObject, show } from "../formats/json.js";
import { writeFolder } from "../formats/write.js";
import { difference, type Fingerprint } from "../train/fingerprint.js";
import type { Evaluation, RunFacts, SweepPoint, SweepResult } from "./evaluation.js";

/** The file's name in the folder of a sweep. */
export const SWEEP_FILE = "sweep.json";

/** A sweep, whole or so far. */
export interface SweepFile {
  readonly version: 1;
  /** How the newest points came about. */
  readonly run: RunFacts;
  /** All that the points have in common: a file of other settings is another sweep. */
  readonly settings: Fingerprint;
  /** The held-out data. */
  readonly data: Evaluation["data"];
  readonly sweep: SweepResult;
}

/** Writes the file in its folder, which is made where there is none: beside, then renamed. Node only. */
export async function writeSweep(folder: string, file: SweepFile): Promise<void> {
  await writeFolder(folder, new Map([[SWEEP_FILE, `${JSON.stringify(file, null, 2)}\n`]]));
}

/**
 * The points of the sweep in `folder`, none where there is no file. Node only.
 * @param parameters what is varied, in the order of each point's values
 * @throws FormatError naming what differs where the file is of another sweep
 */
export async function readSweep(
  folder: string,
  settings: Fingerprint,
  parameters: readonly string[],
): Promise<SweepResult> {
  const { join } = await import("node:path");
  const { stat } = await import("node:fs/promises");
  const path = join(folder, SWEEP_FILE);
  const isThere = await stat(path).then(
    () => true,
    () => false,
  );
  if (!isThere) return { parameters, points: [], failed: [] };
  const fields = await fieldsOf(path);
  const found = sweepOf(fields);
  if (found.parameters.join() !== parameters.join()) {
    const problem = `is of another sweep: it varies ${found.parameters.join(", ")}, this one ${parameters.join(", ")}`;
    throw new FormatError(path, problem);
  }
  const was = (fields.object("settings") ?? fields.fail("settings", "is missing")).values as Fingerprint;
  const problem = difference(was, settings);
  if (problem !== null) throw new FormatError(path, `is of another sweep: ${problem}`);
  return found;
}

/** The sweep of a file, to show it beside other figures. Node only. */
export async function readSweepResult(path: string): Promise<SweepResult> {
  return sweepOf(await fieldsOf(path));
}

async function fieldsOf(path: string): Promise<Fields> {
  const files = await openFiles(path);
  if (files.main === null) throw new FormatError(path, "is a folder, expected a file of JSON");
  const fields = new Fields(path, parseObject(await files.text(files.main), path));
  if (fields.integer("version") !== 1) fields.fail("version", "must be 1");
  return fields;
}

function sweepOf(fields: Fields): SweepResult {
  const sweep = fields.object("sweep") ?? fields.fail("sweep", "is missing");
  const parameters = itemsOf(sweep, "parameters").map(String);
  return {
    parameters,
    points: pointsOf(sweep, "points").map((point) => ({
      ...placeOf(point, parameters.length),
      auroc: numberOf(point, "auroc"),
      tpr_at_1_percent_fpr: numberOf(point, "tpr_at_1_percent_fpr"),
      kl_per_token: numberOf(point, "kl_per_token"),
      perplexity_ratio: numberOf(point, "perplexity_ratio"),
    })),
    failed: pointsOf(sweep, "failed").map((point) => ({
      ...placeOf(point, parameters.length),
      reason: point.string("reason"),
    })),
  };
}

function itemsOf(fields: Fields, name: string): readonly unknown[] {
  const items = fields.get(name);
  return Array.isArray(items) ? items : fields.fail(name, `must be a list, got ${show(items)}`);
}

function pointsOf(sweep: Fields, name: string): Fields[] {
  return itemsOf(sweep, name).map((item, i) => {
    if (!isObject(item)) sweep.fail(`${name}.${i}`, `must be an object, got ${show(item)}`);
    return new Fields(sweep.file, item, `${sweep.path}${name}.${i}.`);
  });
}

/** Where a point lies in the grid. */
function placeOf(point: Fields, count: number): Pick<SweepPoint, "values" | "seed"> {
  const values = itemsOf(point, "values");
  if (values.length !== count || !values.every((value) => typeof value === "number")) {
    point.fail("values", `must be ${count} numbers, got ${show(values)}`);
  }
  return { values, seed: point.integer("seed", { least: 0, most: Number.MAX_SAFE_INTEGER }) };
}

function numberOf(point: Fields, name: string): number {
  const value = point.get(name);
  return typeof value === "number" ? value : point.fail(name, `must be a number, got ${show(value)}`);
}
