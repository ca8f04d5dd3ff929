import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { type EvaluationOptions, evaluate, type Findings } from "../eval/evaluate.js";
import type { DetectorResult, Estimate, Evaluation, RunFacts } from "../eval/evaluation.js";
import { type Decision, parseDecision } from "../flag/decision.js";
import { loadRedFlag } from "../flag/store.js";
import { readJsonLines } from "../formats/jsonl.js";
import { writeFolder } from "../formats/write.js";
import { fingerprint } from "./fingerprint.js";
import { expectFolderTarget, type ModelOptions, withModel } from "./load.js";
import { dtypeOption, integer, parsed } from "./options.js";
import { jsonLine, type Progress, progressBar, table } from "./terminal.js";

interface EvalOptions extends Omit<ModelOptions, "adapter"> {
  readonly adapter: readonly string[];
  readonly harmful: string;
  readonly benign: string;
  readonly out: string;
  readonly decision?: Decision;
  readonly maxTokens: number;
  readonly generate: boolean;
  readonly resamples: number;
}

/** `eval`: how well the flag tells harmful conversations from benign ones, and what it costs. */
export function evalCommand(root: Command): Command {
  return root
    .command("eval")
    .description("measure the red flag on harmful and benign conversations")
    .requiredOption("--model <path>", "Hugging Face folder or llama2.c .bin")
    .requiredOption("--adapter <folders...>", "red flags of `train`: the same training under several seeds")
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .requiredOption("--harmful <file>", "JSON Lines: prompt, response?, onset?, category?, language?")
    .requiredOption("--benign <file>", "JSON Lines: prompt, response?, category?, language?")
    .requiredOption("--out <folder>", "gets metrics.json")
    .option(
      "--decision <rule>",
      "argmax, threshold=LEVEL, cumulative=LEVEL, ema=DECAY,LEVEL (default: the calibrated, or threshold=0.5)",
      parsed(parseDecision),
    )
    .option("--max-tokens <n>", "most tokens of a response, given or generated", integer(1), 512)
    .option("--generate", "let the model answer every prompt itself, also those with a response", false)
    .option("--resamples <n>", "resamples of the bootstrap", integer(1), 2000)
    .action(run);
}

async function run(options: EvalOptions): Promise<void> {
  await expectFolderTarget(options.out);
  const harmful = { path: options.harmful, examples: await readJsonLines(options.harmful) };
  const benign = { path: options.benign, examples: await readJsonLines(options.benign) };
  const { adapter: folders, ...modelOptions } = options;
  await withModel(modelOptions, async ({ model, backend }) => {
    const settings: EvaluationOptions = { ...options, seed: options.seed ?? 0 };
    const data = fingerprint(benign.examples);
    const calibratedHere: string[] = [];
    const adapters = folders.map((path) => async () => {
      const flagged = await loadRedFlag(model, path);
      if (flagged.calibration?.fit?.data === data) calibratedHere.push(path);
      return flagged;
    });
    const { progress, stop } = evalProgress();
    const findings = await evaluate(
      { model, adapters, harmful, benign, decision: options.decision, onProgress: progress },
      settings,
    ).finally(stop);
    // What `--attacks` and `--sweep` add goes here.
    const evaluation: Evaluation = {
      version: 1,
      run: runFacts(options, settings, findings, backend.description),
      ...findings,
      attacks: [],
      training: [],
      sweep: null,
    };
    await writeFolder(options.out, new Map([["metrics.json", `${JSON.stringify(evaluation, null, 2)}\n`]]));
    show(options, evaluation);
    if (calibratedHere.length > 0 && !options.json) {
      process.stdout.write(
        `${options.benign}: ${calibratedHere.join(", ")} had its level from these; the share falsely flagged is no test\n`,
      );
    }
  });
}

/** A bar that begins when it is known how much there is to do. */
function evalProgress(): { progress: (done: number, total: number) => void; stop: () => void } {
  let bar: Progress | undefined;
  return {
    progress: (done, total) => {
      bar ??= progressBar("eval", total);
      bar.update(done);
    },
    stop: () => bar?.stop(),
  };
}

function runFacts(
  options: EvalOptions,
  { seed, resamples }: EvaluationOptions,
  { detectors }: Findings,
  backend: string,
): RunFacts {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return {
    command: ["oriflamme", ...process.argv.slice(2)],
    date: new Date().toISOString(),
    seed,
    resamples,
    versions: { oriflamme: version, node: process.versions.node },
    backend,
    model: options.model,
    adapters: options.adapter,
    decision: detectors[0]?.rule ?? "",
  };
}

function show({ json, out }: EvalOptions, evaluation: Evaluation): void {
  const { detectors, utility, data } = evaluation;
  if (json) {
    // The curve is for the file.
    for (const { roc: _, ...detector } of detectors) jsonLine(detector);
    return;
  }
  const lines = [
    table([
      ["", "AUROC", "TPR at 1 % FPR", "at 0.1 %", "flagged", "falsely", "rule"],
      ...detectors.map(detectorRow),
    ]),
    "",
  ];
  if (utility) {
    lines.push(
      table([
        ["on benign text", ""],
        ["KL, nats a token", interval(utility.kl_per_token, 4)],
        ["perplexity ratio", interval(utility.perplexity_ratio, 3)],
        ["same likeliest token", percentInterval(utility.agreement)],
      ]),
      "",
    );
  }
  const counts = (["harmful", "benign"] as const).map((kind) => {
    const { examples, generated, left_out } = data[kind];
    const notes = [
      ...(generated > 0 ? [`${generated} answered by the model`] : []),
      ...(left_out > 0 ? [`${left_out} left out`] : []),
    ];
    return `${examples} ${kind}${notes.length > 0 ? ` (${notes.join(", ")})` : ""}`;
  });
  lines.push(`${out}: ${counts.join(", ")}; intervals of 95 %, ${evaluation.run.resamples} resamples`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

function detectorRow(detector: DetectorResult): string[] {
  return [
    detector.name,
    interval(detector.auroc, 3),
    percentInterval(detector.tpr_at_1_percent_fpr),
    percentInterval(detector.tpr_at_01_percent_fpr),
    percentInterval(detector.flag_rate),
    percentInterval(detector.false_positive_rate),
    detector.rule,
  ];
}

/** A value with its interval, or a dash. */
function interval(estimate: Estimate | null, digits: number): string {
  if (!estimate) return "-";
  const { value, low, high } = estimate;
  return `${value.toFixed(digits)} [${low.toFixed(digits)}, ${high.toFixed(digits)}]`;
}

/** The same in percent. */
function percentInterval(estimate: Estimate | null): string {
  if (!estimate) return "-";
  const [value, low, high] = [estimate.value, estimate.low, estimate.high].map((x) => (100 * x).toFixed(1));
  return `${value} % [${low}, ${high}]`;
}
