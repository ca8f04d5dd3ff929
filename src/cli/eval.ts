import type { Command } from "commander";
import { FormatError } from "../errors.js";
import { ATTACK_DEFAULTS, type PlannedAttack, parseAttacks, runAttacks } from "../eval/attacks/run.js";
import { type TrainingFiles, trainBaselines } from "../eval/baselines.js";
import { externalClassifier } from "../eval/classifier.js";
import type { ExampleFile } from "../eval/conversations.js";
import type { Detector } from "../eval/detector.js";
import { type EvaluationOptions, evaluate, type Findings } from "../eval/evaluate.js";
import type { AttackResult, Evaluation, RunFacts } from "../eval/evaluation.js";
import { parseRefusalPhrases, refusalDetector } from "../eval/refusal.js";
import { readSweepResult } from "../eval/sweep-file.js";
import { readTrainingCurve } from "../eval/training-log.js";
import { dataDigest } from "../flag/calibration.js";
import { type Decision, parseDecision } from "../flag/decision.js";
import { loadRedFlag } from "../flag/store.js";
import type { FlaggedModel } from "../flag/vocab.js";
import { openFiles } from "../formats/files.js";
import { readJsonLines } from "../formats/jsonl.js";
import { writeFolder } from "../formats/write.js";
import { readConfig } from "./config-file.js";
import { evaluationTables } from "./eval-tables.js";
import { interruptible } from "./interrupt.js";
import { expectFolderTarget, type ModelOptions, withModel } from "./load.js";
import { dtypeOption, integer, number, parsed } from "./options.js";
import { jsonLine, type Progress, progressBar } from "./terminal.js";
import { version } from "./version.js";

interface EvalOptions extends Omit<ModelOptions, "adapter"> {
  readonly adapter: readonly string[];
  readonly harmful: string;
  readonly benign: string;
  readonly out: string;
  readonly decision?: Decision;
  readonly maxTokens: number;
  readonly generate: boolean;
  readonly resamples: number;
  readonly trainHarmful?: string;
  readonly trainBenign?: string;
  readonly fixedPos?: readonly string[];
  readonly refusal?: true | string;
  readonly classifier?: string;
  readonly classifierThreshold: number;
  readonly classifierTimeout: number;
  readonly attacks?: string;
  readonly attackConfig?: string;
  readonly sweep?: string;
}

/** `eval`: how well the flag tells harmful conversations from benign ones, and what it costs. */
export function evalCommand(root: Command): Command {
  return root
    .command("eval")
    .description("measure the red flag on harmful and benign conversations")
    .requiredOption("--model <path>", "Hugging Face folder, .gguf or llama2.c .bin")
    .requiredOption("--adapter <folders...>", "red flags of `train`: the same training under several seeds")
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .requiredOption("--harmful <file>", "JSON Lines: prompt, response?, onset?, category?, language?")
    .requiredOption("--benign <file>", "JSON Lines: prompt, response?, category?, language?")
    .requiredOption("--out <folder>", "gets metrics.json and report.html")
    .option(
      "--decision <rule>",
      "argmax, threshold=LEVEL, cumulative=LEVEL, ema=DECAY,LEVEL (default: the calibrated, or threshold=0.5)",
      parsed(parseDecision),
    )
    .option("--max-tokens <n>", "most tokens of a response, given or generated", integer(1), 512)
    .option("--generate", "let the model answer every prompt itself, also those with a response", false)
    .option("--resamples <n>", "resamples of the bootstrap", integer(1), 2000)
    .option("--train-harmful <file>", "trains a linear probe and an n-gram classifier to compare with")
    .option("--train-benign <file>", "the other class of their training data")
    .option("--fixed-pos <folders...>", "adapters trained to flag first of all, read there only")
    .option(
      "--refusal [file]",
      "also look for refusals in words: built-in phrases, or one a line (^ at the start)",
    )
    .option("--classifier <command|url>", "also ask a program (JSON Lines in and out) or a server (POST)")
    .option(
      "--classifier-threshold <score>",
      "where it takes a conversation for harmful",
      number(-Infinity),
      0.5,
    )
    .option("--classifier-timeout <seconds>", "most time without an answer", number(0.001), 120)
    .option(
      "--attacks <list>",
      `attack the flag on --harmful: ${Object.keys(ATTACK_DEFAULTS).join(", ")}, with commas between`,
    )
    .option("--attack-config <file>", "JSON of the attacks' options, by attack")
    .option("--sweep <file>", "sweep.json of `sweep`, to show in the report")
    .action(run);
}

async function run(options: EvalOptions): Promise<void> {
  if ((options.trainHarmful === undefined) !== (options.trainBenign === undefined)) {
    throw new RangeError("eval takes --train-harmful and --train-benign together");
  }
  const attacks = await plannedAttacks(options);
  const sweep = options.sweep === undefined ? null : await readSweepResult(options.sweep);
  await expectFolderTarget(options.out);
  const harmful = await exampleFile(options.harmful);
  const benign = await exampleFile(options.benign);
  const training = await trainingFiles(options);
  const guards = await guardsOf(options);
  const curves = await Promise.all(options.adapter.map(readTrainingCurve));
  const { adapter: folders, ...modelOptions } = options;
  await withModel(modelOptions, async ({ model, backend }) => {
    const settings: EvaluationOptions = { ...options, seed: options.seed ?? 0 };
    const data = await dataDigest(benign.examples);
    const calibratedHere: string[] = [];
    const adapters = folders.map((path) => async () => {
      const flagged = await loadRedFlag(model, path);
      if (flagged.calibration?.fit?.data === data) calibratedHere.push(path);
      return flagged;
    });
    const fixedPos = (options.fixedPos ?? []).map((path) => () => loadRedFlag(model, path));
    const baselines = async () =>
      training
        ? withProgress("baselines", (bar) => trainBaselines(model, training, options.maxTokens, bar))
        : [];
    const input = {
      ...{ model, adapters, harmful, benign, fixedPos, baselines, guards },
      decision: options.decision,
    };
    const findings = await withProgress("eval", (onProgress) => evaluate({ ...input, onProgress }, settings));
    const attacked = await attackAll(adapters, attacks, harmful, settings.seed, options);
    const evaluation: Evaluation = {
      version: 1,
      run: runFacts(options, settings, findings, backend.description),
      ...findings,
      attacks: attacked,
      training: curves.filter((curve) => curve !== null),
      sweep,
    };
    await writeEvaluation(options.out, evaluation);
    if (options.json) {
      // The curve is for the file.
      for (const { roc: _, ...detector } of evaluation.detectors) jsonLine(detector);
    } else {
      process.stdout.write(`${evaluationTables(evaluation)}\n${options.out}\n`);
    }
    if (calibratedHere.length > 0 && !options.json) {
      process.stdout.write(
        `${options.benign}: ${calibratedHere.join(", ")} had its level from these; the share falsely flagged is no test\n`,
      );
    }
  });
}

async function plannedAttacks({ attacks, attackConfig }: EvalOptions): Promise<PlannedAttack[]> {
  if (attacks !== undefined) return parseAttacks(attacks, await readConfig(attackConfig, ATTACK_DEFAULTS));
  if (attackConfig !== undefined) throw new RangeError("--attack-config needs --attacks");
  return [];
}

/** Attacks every adapter, one after the other; where there are several, each result says of which it is. */
async function attackAll(
  adapters: readonly (() => Promise<FlaggedModel>)[],
  attacks: readonly PlannedAttack[],
  { examples }: ExampleFile,
  seed: number,
  { adapter: folders, decision }: EvalOptions,
): Promise<AttackResult[]> {
  if (attacks.length === 0) return [];
  const { signal, stop } = interruptible();
  const results: AttackResult[] = [];
  try {
    for (const [i, load] of adapters.entries()) {
      const flagged = await load();
      const context = { decision: decision ?? flagged.decision, seed, signal };
      let bar: { readonly attack: string; readonly progress: Progress } | undefined;
      const onProgress = (at: { attack: string; done: number; total: number }) => {
        if (bar?.attack !== at.attack) {
          bar?.progress.stop();
          bar = { attack: at.attack, progress: progressBar(at.attack, at.total) };
        }
        bar.progress.update(at.done);
      };
      try {
        const found = await runAttacks(flagged, examples, { attacks, ...context, onProgress });
        const own = folders.length > 1 ? { adapter: folders[i] as string } : {};
        results.push(...found.map((result) => ({ ...result, options: { ...own, ...result.options } })));
      } finally {
        bar?.progress.stop();
        flagged.dispose();
      }
    }
  } finally {
    stop();
  }
  return results;
}

async function exampleFile(path: string): Promise<ExampleFile> {
  return { path, examples: await readJsonLines(path) };
}

async function trainingFiles({ trainHarmful, trainBenign }: EvalOptions): Promise<TrainingFiles | undefined> {
  if (trainHarmful === undefined || trainBenign === undefined) return undefined;
  return { harmful: await exampleFile(trainHarmful), benign: await exampleFile(trainBenign) };
}

async function guardsOf(options: EvalOptions): Promise<Detector[]> {
  const guards: Detector[] = [];
  if (options.refusal !== undefined) guards.push(refusalDetector(await refusalPhrases(options.refusal)));
  if (options.classifier !== undefined) {
    const { classifier: target, classifierThreshold: threshold, classifierTimeout: timeout } = options;
    guards.push(externalClassifier({ target, threshold, timeout }));
  }
  return guards;
}

async function refusalPhrases(file: true | string): Promise<readonly string[] | undefined> {
  if (file === true) return undefined;
  const files = await openFiles(file);
  if (files.main === null) throw new FormatError(file, "is a folder, expected a file of phrases");
  const phrases = parseRefusalPhrases(await files.text(files.main));
  if (phrases.length === 0) throw new FormatError(file, "holds no phrases");
  return phrases;
}

/** Runs `work` under a bar that begins when it is known how much there is to do. */
async function withProgress<T>(
  label: string,
  work: (onProgress: (done: number, total: number) => void) => Promise<T>,
): Promise<T> {
  let bar: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    bar ??= progressBar(label, total);
    bar.update(done);
    if (done === total) bar.stop();
  };
  return work(onProgress).finally(() => bar?.stop());
}

/** Both files, or none. What draws the report is loaded now: other commands never need it. */
async function writeEvaluation(folder: string, evaluation: Evaluation): Promise<void> {
  const { renderReport } = await import("../eval/report.js");
  const files = new Map([
    ["metrics.json", `${JSON.stringify(evaluation, null, 2)}\n`],
    ["report.html", renderReport(evaluation)],
  ]);
  await writeFolder(folder, files);
}

function runFacts(
  options: EvalOptions,
  { seed, resamples }: EvaluationOptions,
  { detectors }: Findings,
  backend: string,
): RunFacts {
  return {
    command: ["oriflamme", ...process.argv.slice(2)],
    date: new Date().toISOString(),
    seed,
    resamples,
    versions: { oriflamme: version(), node: process.versions.node },
    backend,
    model: options.model,
    adapters: options.adapter,
    decision: detectors[0]?.rule ?? "",
  };
}
