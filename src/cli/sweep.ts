import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import type { Backend } from "../backend.js";
import { DivergenceError } from "../errors.js";
import type { Evaluation, RunFacts, SweepFailure, SweepPoint, SweepResult } from "../eval/evaluation.js";
import {
  axisNames,
  type GivenHyperparameters,
  type GridAxis,
  type GridPoint,
  gridPoints,
  parseAxis,
} from "../eval/grid.js";
import { HELD_OUT_SHARE, holdOut } from "../eval/hold-out.js";
import { mean } from "../eval/metrics.js";
import { type BothClasses, type HeldOut, heldOutConversations, sweepRedFlag } from "../eval/sweep.js";
import { readSweep, SWEEP_FILE, type SweepFile, writeSweep } from "../eval/sweep-file.js";
import { sweepFingerprint } from "../eval/sweep-settings.js";
import { RED_FLAG_DEFAULTS } from "../flag/train.js";
import { type Example, readJsonLines } from "../formats/jsonl.js";
import { replaceFile } from "../formats/write.js";
import { Random } from "../random.js";
import { Interrupted, interruptible } from "./interrupt.js";
import { expectFolderTarget, type ModelOptions, withModel } from "./load.js";
import { dtypeOption, integer, parsed } from "./options.js";
import { jsonLine, progressBar, table } from "./terminal.js";
import { readTrainSettings } from "./train-settings.js";
import { version } from "./version.js";

interface SweepCommandOptions extends ModelOptions {
  readonly harmful: string;
  readonly benign: string;
  readonly evalHarmful?: string;
  readonly evalBenign?: string;
  readonly grid: readonly GridAxis[];
  readonly seeds?: readonly number[];
  readonly config?: string;
  readonly steps?: number;
  readonly out: string;
}

/** `sweep`: how the flag depends on hyperparameters. */
export function sweepCommand(root: Command): Command {
  return root
    .command("sweep")
    .description("train a red flag at every point of a grid of hyperparameters, and measure each")
    .requiredOption("--model <path>", "Hugging Face folder, .gguf or llama2.c .bin")
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .requiredOption("--harmful <file>", "JSON Lines: prompt, response, onset?")
    .requiredOption("--benign <file>", "JSON Lines: prompt, response")
    .option(
      "--eval-harmful <file>",
      `held-out data (default: ${100 * HELD_OUT_SHARE} % of --harmful by --seed)`,
    )
    .option("--eval-benign <file>", "held-out data, given together with --eval-harmful")
    .requiredOption<readonly GridAxis[]>(
      "--grid <name=values>",
      `benign=1,4,16; once for each hyperparameter to vary, of ${axisNames().join(", ")}`,
      (text, axes: readonly GridAxis[] = []) => [...axes, parsed(parseAxis)(text)],
    )
    .option("--seeds <list>", "train each point under each of these seeds: 0,1,2 (default: --seed)", seedList)
    .option("--config <file>", "JSON of the other hyperparameters")
    .option("--steps <n>", `steps of the optimiser (default: ${RED_FLAG_DEFAULTS.steps})`, integer(1))
    .requiredOption(
      "--out <folder>",
      `gets ${SWEEP_FILE} and report.html; points that it has already are not trained again`,
    )
    .action(run);
}

function seedList(text: string): number[] {
  const seeds = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (!seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 0) || new Set(seeds).size < seeds.length) {
    throw new InvalidArgumentError("It must be different integers from 0 with commas between: 0,1,2.");
  }
  return seeds;
}

async function run(options: SweepCommandOptions): Promise<void> {
  const { flag, given: config } = await readTrainSettings(options.config);
  const { steps } = options;
  const seed = options.seed ?? config.seed ?? RED_FLAG_DEFAULTS.seed;
  const given: GivenHyperparameters = { ...config, ...(steps === undefined ? {} : { steps }) };
  const points = gridPoints(options.grid, options.seeds ?? [seed], given);
  await expectFolderTarget(options.out);
  const { training, heldOut } = await readData(options, seed);
  await withModel(options, async ({ model, backend }) => {
    const maxResponse = given.maxResponse ?? RED_FLAG_DEFAULTS.maxResponse;
    const conversations = heldOutConversations(model, heldOut, maxResponse);
    const settings = await sweepFingerprint(model, {
      ...{ axes: options.grid, given, flag, training, heldOut, maxResponse },
      facts: { version: version(), backend: backend.kind, deterministic: options.deterministic },
    });
    const parameters = options.grid.map(({ name }) => name);
    let sweep = await readSweep(options.out, settings, parameters);
    const facts: Omit<SweepFile, "sweep"> = {
      ...{ version: 1, run: runFacts(options, seed, backend), settings },
      data: dataFacts(options, heldOut, conversations.leftOut),
    };

    const left = points.filter((point) => !has(sweep, point));
    const progress = sweepProgress(left);
    const interrupt = interruptible();
    try {
      const results = sweepRedFlag(model, left, {
        ...{ flag, training, heldOut: conversations, signal: interrupt.signal },
        onStep: (point, { step, loss }) => progress.onStep(point, step, loss),
      });
      for await (const result of results) {
        sweep = withResult(sweep, result);
        await writeSweep(options.out, { ...facts, sweep });
        if (options.json) jsonLine(resultLine(parameters, result));
      }
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      const kept = points.filter((point) => has(sweep, point)).length;
      throw new Interrupted(
        error.signal,
        `${error.message}; ${kept} of ${points.length} points are kept, the same command goes on`,
      );
    } finally {
      interrupt.stop();
      progress.stop();
    }
    await writeReport(options.out, { ...facts, sweep });
    if (!options.json) show(options.out, sweep, left.length);
    const [failure] = sweep.failed;
    if (sweep.points.length === 0 && failure) {
      throw new DivergenceError(`${options.out}: every point diverged; the first: ${failure.reason}`);
    }
  });
}

/** The data to train on, and the data to measure on. */
async function readData(
  options: SweepCommandOptions,
  seed: number,
): Promise<{ training: BothClasses<Example>; heldOut: BothClasses<Example> }> {
  const { evalHarmful, evalBenign } = options;
  const harmful = await readJsonLines(options.harmful);
  const benign = await readJsonLines(options.benign);
  if (evalHarmful !== undefined && evalBenign !== undefined) {
    const heldOut = { harmful: await readJsonLines(evalHarmful), benign: await readJsonLines(evalBenign) };
    return { training: { harmful, benign }, heldOut };
  }
  if (evalHarmful !== undefined || evalBenign !== undefined) {
    throw new RangeError("--eval-harmful and --eval-benign go together: give both, or neither");
  }
  const random = new Random(seed);
  const [h, b] = [holdOut(harmful, "--harmful", random), holdOut(benign, "--benign", random)];
  return {
    training: { harmful: h.training, benign: b.training },
    heldOut: { harmful: h.heldOut, benign: b.heldOut },
  };
}

function has({ points, failed }: SweepResult, { values, hyperparameters: { seed } }: GridPoint): boolean {
  return [...points, ...failed].some((known) => known.seed === seed && known.values.join() === values.join());
}

function withResult(sweep: SweepResult, result: SweepPoint | SweepFailure): SweepResult {
  return "reason" in result
    ? { ...sweep, failed: [...sweep.failed, result] }
    : { ...sweep, points: [...sweep.points, result] };
}

/** A bar over the steps of all points that are left. */
function sweepProgress(left: readonly GridPoint[]) {
  const stepsOf = ({ hyperparameters: { steps } }: GridPoint) => steps;
  const bar = progressBar(
    "sweep",
    left.map(stepsOf).reduce((sum, steps) => sum + steps, 0),
  );
  return {
    onStep(point: GridPoint, step: number, loss: number) {
      const index = left.indexOf(point);
      const before = left.slice(0, index).reduce((sum, earlier) => sum + stepsOf(earlier), 0);
      bar.update(before + step, `point ${index + 1} of ${left.length}, loss ${loss.toFixed(3)}`);
    },
    stop: () => bar.stop(),
  };
}

function runFacts(options: SweepCommandOptions, seed: number, backend: Backend): RunFacts {
  return {
    command: ["oriflamme", ...process.argv.slice(2)],
    date: new Date().toISOString(),
    seed,
    // A point's figures have no intervals; its seeds show how far they move.
    resamples: 0,
    versions: { oriflamme: version(), node: process.versions.node },
    backend: backend.description,
    model: options.model,
    adapters: [],
    // Figures of a ranking need no rule.
    decision: "",
  };
}

/** The held-out data. */
function dataFacts(
  { harmful, benign, evalHarmful, evalBenign }: SweepCommandOptions,
  heldOut: BothClasses<Example>,
  leftOut: HeldOut["leftOut"],
): SweepFile["data"] {
  const facts = (path: string, kind: "harmful" | "benign") => ({
    ...{ path, examples: heldOut[kind].length, generated: 0, left_out: leftOut[kind] },
  });
  return { harmful: facts(evalHarmful ?? harmful, "harmful"), benign: facts(evalBenign ?? benign, "benign") };
}

/** The sweep as `report.html`. What draws it is loaded now: other commands never need it. */
async function writeReport(folder: string, { run, data, sweep }: SweepFile): Promise<void> {
  const { renderReport } = await import("../eval/report.js");
  const evaluation: Evaluation = {
    ...{ version: 1, run, data, detectors: [], groups: [], along: [], utility: null },
    ...{ attacks: [], training: [], sweep, examples: [] },
  };
  await replaceFile(join(folder, "report.html"), renderReport(evaluation));
}

function resultLine(parameters: readonly string[], { values, ...result }: SweepPoint | SweepFailure): object {
  return { values: Object.fromEntries(parameters.map((name, i) => [name, values[i]])), ...result };
}

/** The means over the seeds of each setting. */
function show(out: string, { parameters, points, failed }: SweepResult, trained: number): void {
  const settings = [...new Set(points.map(({ values }) => values.join()))].map((setting) =>
    points.filter(({ values }) => values.join() === setting),
  );
  const rows = settings.map((seeds) => {
    const meanOf = (read: (point: SweepPoint) => number) => mean(seeds.map(read));
    return [
      ...(seeds[0]?.values ?? []).map(String),
      ...[`${seeds.length}`, meanOf(({ auroc }) => auroc).toFixed(3)],
      `${(100 * meanOf(({ tpr_at_1_percent_fpr: tpr }) => tpr)).toFixed(1)} %`,
      meanOf(({ kl_per_token: kl }) => kl).toFixed(4),
      meanOf(({ perplexity_ratio: ratio }) => ratio).toFixed(3),
    ];
  });
  const head = [...parameters, "seeds", "AUROC", "TPR at 1 % FPR", "KL a token", "perplexity ratio"];
  const diverged = failed.map(
    ({ values, seed, reason }) =>
      `diverged: ${parameters.map((name, i) => `${name} ${values[i]}`).join(", ")}, seed ${seed}: ${reason}\n`,
  );
  const count = points.length + failed.length;
  process.stdout.write(
    `${table([head, ...rows])}\n${diverged.join("")}${out}: ${count} points, ${trained} of them trained now\n`,
  );
}
