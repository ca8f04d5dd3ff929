import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import type { Backend } from "../backend.js";
import { removeFiles, removeUnfinished, replaceFile, writeError } from "../formats/write.js";
import { type CheckpointOptions, hasCheckpoint, removeCheckpoint } from "../train/checkpoint.js";
import type { TrainStep } from "../train/trainer.js";
import { Interrupted, interruptible } from "./interrupt.js";
import { type GlobalOptions, integer } from "./options.js";
import { jsonLine, type Progress, progressBar } from "./terminal.js";
import { version } from "./version.js";

/** What commands that train take. */
export interface TrainingOptions extends GlobalOptions {
  readonly out: string;
  readonly checkpointEvery: number;
  readonly resume: boolean;
}

/** A line a step, in OUT when the run is done, in its folder until then. */
const METRICS = "metrics.jsonl";

/** Adds the options of `TrainingOptions` but for --out. */
export function withTrainingOptions(command: Command): Command {
  return command
    .option(
      "--checkpoint-every <n>",
      "steps between checkpoints, which are kept in OUT.checkpoint until the run is done; 0 for none",
      integer(0),
      50,
    )
    .option(
      "--resume",
      "go on from the checkpoint that the same command left, or begin where there is none",
      false,
    );
}

/**
 * A training as the command line shows and keeps it: a bar on stderr, lines on stdout and in `metrics.jsonl`,
 * checkpoints in a folder beside the result.
 */
export class TrainingRun {
  readonly #lines: string[] = [];
  #bar: Progress | undefined;
  #hasBegun = false;
  #metricsBegun = false;
  #step = 0;
  /** The last loss on held-out text. */
  #heldOut: number | undefined;

  constructor(
    readonly label: string,
    /** Steps of the whole run. */
    readonly total: number,
    readonly options: TrainingOptions,
    readonly backend: Backend,
    /** Aborted where the user ends the run. */
    readonly signal: AbortSignal,
  ) {}

  /** Where the run is kept until it is done. */
  get folder(): string {
    return `${this.options.out.replace(/[\\/]+$/, "")}.checkpoint`;
  }

  get #isKept(): boolean {
    return this.options.checkpointEvery > 0;
  }

  /** For the training; undefined where there is nothing to keep or to go on from. */
  get checkpoint(): CheckpointOptions | undefined {
    const { checkpointEvery: every, resume, deterministic } = this.options;
    if (!this.#isKept && !resume) return undefined;
    return {
      folder: this.folder,
      every,
      resume,
      facts: { version: version(), backend: this.backend.kind, deterministic },
      onRestore: (steps) => this.#restored(steps),
    };
  }

  #restored(steps: readonly TrainStep[]): void {
    const { resume } = this.options;
    if (resume && steps.length === 0) notice(`${this.folder} holds no checkpoint: beginning anew`);
    if (steps.length > 0) notice(`going on after step ${steps.length}, from ${this.folder}`);
    this.#lines.push(...steps.map((step) => `${JSON.stringify(stepLine(step))}\n`));
    this.#step = steps.length;
    this.#begin();
  }

  /** Shows the responses that the model writes before the first step. */
  onResponse(done: number, total: number): void {
    this.#bar ??= progressBar("responses", total);
    this.#bar.update(done);
  }

  /** The bar of the steps, from where the run stands. */
  #begin(): void {
    this.#bar?.stop();
    this.#bar = progressBar(this.label, this.total, this.#step);
    this.#hasBegun = true;
  }

  /** Shows and writes down a step. */
  onStep(step: TrainStep): void {
    if (!this.#hasBegun) this.#begin();
    const line = stepLine(step);
    this.#lines.push(`${JSON.stringify(line)}\n`);
    this.#step = step.step;
    this.#heldOut = step.validation?.loss ?? this.#heldOut;
    const heldOut = this.#heldOut === undefined ? "" : `, held out ${this.#heldOut.toFixed(3)}`;
    const speed = `${Math.round(step.tokensPerSecond)} tokens/s`;
    this.#bar?.update(step.step, `loss ${step.loss.toFixed(3)}${heldOut}, ${speed}`);
    if (this.#isKept) this.#append();
    if (this.options.json) jsonLine(line);
  }

  /** Appends the last line to the metrics, after those before where this process has not begun them. */
  #append(): void {
    const path = join(this.folder, METRICS);
    try {
      if (this.#metricsBegun) {
        appendFileSync(path, this.#lines.at(-1) ?? "");
      } else {
        mkdirSync(this.folder, { recursive: true });
        writeFileSync(path, this.#lines.join(""));
        this.#metricsBegun = true;
      }
    } catch (error) {
      throw writeError(path, error);
    }
  }

  /** Lets the terminal go; the training has ended. */
  stop(): void {
    this.#bar?.stop();
  }

  /** Adds the metrics to the result, and clears what the run kept. */
  async finish(): Promise<void> {
    const { out, resume } = this.options;
    await replaceFile(join(out, METRICS), this.#lines.join(""));
    // A process before this one may have been killed while it wrote the result.
    if (resume) await removeUnfinished(dirname(resolve(out)), basename(resolve(out)));
    if (resume) await removeUnfinished(out, "");
    await removeCheckpoint(this.folder);
    await removeFiles(this.folder, [METRICS]);
  }

  /** Clears what a failed run kept where it holds nothing to go on from, and tells how to go on where it does. */
  async fail(error: unknown): Promise<never> {
    const isKept = await hasCheckpoint(this.folder);
    if (!isKept) await removeFiles(this.folder, [METRICS]);
    if (!(error instanceof Interrupted)) throw error;
    const after = this.#step > 0 ? `after step ${this.#step}` : "before the first step";
    const rest = isKept
      ? `; the same command with --resume goes on from ${this.folder}`
      : "; nothing was kept";
    throw new Interrupted(error.signal, `${error.message} ${after}${rest}`);
  }
}

/** Runs a training to its end: `work` trains, writes the result to --out and says so. */
export async function trainingRun(
  label: string,
  total: number,
  { options, backend }: { readonly options: TrainingOptions; readonly backend: Backend },
  work: (run: TrainingRun) => Promise<void>,
): Promise<void> {
  const interrupt = interruptible();
  const run = new TrainingRun(label, total, options, backend, interrupt.signal);
  try {
    await work(run);
    await run.finish();
  } catch (error) {
    run.stop();
    await run.fail(error);
  } finally {
    interrupt.stop();
  }
}

/** A step as machines read it. */
function stepLine({ step, loss, terms, lr, tokensPerSecond, validation }: TrainStep): object {
  const heldOut = validation && { holdout_loss: validation.loss, bits_per_byte: validation.bitsPerByte };
  return { step, loss, ...terms, lr, ...heldOut, tokens_per_second: tokensPerSecond };
}

function notice(text: string): void {
  process.stderr.write(`oriflamme: ${text}\n`);
}
