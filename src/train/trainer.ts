import { DivergenceError } from "../errors.js";
import { yieldToEventLoop } from "../event-loop.js";
import { Tape } from "../tape.js";
import { Arena, type Parameters } from "../tensor.js";
import type { BatchSource } from "./batches.js";
import type { Checkpoint } from "./checkpoint.js";
import { DIVERGENCE, LossWatch } from "./divergence.js";
import { AdamW, type AdamWOptions } from "./optimiser.js";
import { learningRate, type Schedule } from "./schedule.js";

/** What a loss reports of one batch. */
export interface LossReport {
  /** What was minimised. */
  readonly loss: number;
  /** Its parts, by name. */
  readonly terms: Readonly<Record<string, number>>;
  /** Tokens that went through the model, padding not counted. */
  readonly tokens: number;
}

/** Reads what a loss has to report, once its backward has been dispatched. */
export type ReadLoss = () => Promise<LossReport>;

/**
 * A loss: runs the model on the tape and ends the graph with gradients times `scale`. One that must read from the
 * device before it can do that is a promise.
 */
export type Loss<Batch> = (tape: Tape, batch: Batch, scale: number) => ReadLoss | Promise<ReadLoss>;

/** A loss that reads nothing from the device first. */
export type SyncLoss<Batch> = (tape: Tape, batch: Batch, scale: number) => ReadLoss;

/** What the training loop does with a loss. */
export interface TrainOptions extends Schedule, AdamWOptions {
  /** Batches whose gradients are averaged before a step. */
  readonly accumulate: number;
  /** Most Euclidean norm of the gradient; longer ones are scaled down. Infinity for none. */
  readonly clip: number;
  /** Run each block of the network again in its backward instead of keeping what lies inside it. */
  readonly gradientCheckpointing?: boolean;
  /**
   * The run ends where the loss stays above this multiple of its best level (see `LossWatch`); 0 for never.
   * 3 by default.
   */
  readonly divergence?: number | undefined;
  /** Ends the run between two steps, once a checkpoint is written where there are any. */
  readonly signal?: AbortSignal | undefined;
  /** Keeps the run's state, and goes on from it. */
  readonly checkpoint?: Checkpoint | undefined;
  readonly validation?: Validation | undefined;
}

/** What is measured between steps, on other data than the run's. */
export interface Validation {
  /** Steps between two measurements; the last step is followed by one in any case. */
  readonly every: number;
  measure(): Promise<Readonly<Record<string, number>>>;
}

/** One step of training. Plain JSON: checkpoints hold it. */
export interface TrainStep extends LossReport {
  /** Counted from 1. */
  readonly step: number;
  readonly lr: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  readonly tokensPerSecond: number;
  /** What `TrainOptions.validation` measured after the step, where it did. */
  readonly validation?: Readonly<Record<string, number>>;
}

/**
 * Trains `parameters`, a step at a time: the caller sees each and may stop between any two. Where a checkpoint is
 * resumed from, the first step is the one after it.
 * @param batches asked `accumulate` times for each step
 * @throws DivergenceError, naming step, batch and examples, where a term or the gradient is no longer a number or
 * the loss has diverged; RangeError for a bad `divergence`; what `Checkpoint` throws
 */
export async function* train<Batch>(
  parameters: Parameters,
  loss: Loss<Batch>,
  batches: BatchSource<Batch>,
  options: TrainOptions,
): AsyncGenerator<TrainStep> {
  const { checkpoint, signal, validation } = options;
  const watch = new LossWatch(options.divergence ?? DIVERGENCE);
  const optimiser = new AdamW(parameters, options);
  const arena = new Arena(parameters.backend);
  try {
    await checkpoint?.restore(optimiser, batches);
    const steps = [...(checkpoint?.restored ?? [])];
    for (const step of steps) watch.see(step);
    for (let step = steps.length + 1; step <= options.steps; step++) {
      await yieldToEventLoop();
      if (signal?.aborted) {
        if (checkpoint?.isBehind(steps.length)) await checkpoint.save(optimiser, batches, steps);
        signal.throwIfAborted();
      }
      const start = performance.now();
      const { report, seen } = await gradientOf(arena, loss, batches, options, step);
      const tape = new Tape(arena, false);
      const gradientNorm = await optimiser.gradientNorm(tape);
      if (!Number.isFinite(gradientNorm))
        throw diverged(`step ${step}: the gradient's norm is ${gradientNorm}`, seen, options);
      const problem = watch.see(report);
      if (problem !== null) throw diverged(`step ${step}: ${problem}`, seen, options);
      const lr = learningRate(options, step - 1);
      optimiser.step(tape, lr, gradientNorm > options.clip ? options.clip / gradientNorm : 1);
      await parameters.backend.synchronize();
      const tokensPerSecond = (1000 * report.tokens) / (performance.now() - start);
      const isMeasured = validation && (step % validation.every === 0 || step === options.steps);
      const measured = isMeasured ? { validation: await validation.measure() } : {};
      const done: TrainStep = { ...report, step, lr, gradientNorm, tokensPerSecond, ...measured };
      yield done;
      if (!checkpoint) continue;
      // After the caller has seen the step: a crash in between shows it twice, which is better than never.
      steps.push(done);
      // The last step is followed by the result.
      if (checkpoint.isDue(step) && step < options.steps) await checkpoint.save(optimiser, batches, steps);
    }
  } finally {
    arena.dispose();
    optimiser.dispose();
  }
}

/** The mean loss of the batches of one step, its gradient added to the parameters'; and the batches' examples. */
async function gradientOf<Batch>(
  arena: Arena,
  loss: Loss<Batch>,
  batches: BatchSource<Batch>,
  options: TrainOptions,
  step: number,
): Promise<{ report: LossReport; seen: string[] }> {
  const { accumulate, gradientCheckpointing = false } = options;
  let total = 0;
  let tokens = 0;
  const terms: Record<string, number> = {};
  const seen: string[] = [];
  for (let i = 0; i < accumulate; i++) {
    arena.reset();
    const tape = new Tape(arena, true, { checkpoint: gradientCheckpointing });
    const batch = batches.next();
    const examples = batches.describe?.(batch) ?? "";
    const read = await loss(tape, batch, 1 / accumulate);
    tape.backward();
    const report = await read();
    for (const [name, value] of Object.entries({ ...report.terms, loss: report.loss })) {
      if (!Number.isFinite(value))
        throw diverged(`step ${step}, batch ${i + 1}: ${name} is ${value}`, [examples], options);
    }
    total += report.loss / accumulate;
    tokens += report.tokens;
    for (const [name, value] of Object.entries(report.terms))
      terms[name] = (terms[name] ?? 0) + value / accumulate;
    seen.push(examples);
  }
  return { report: { loss: total, terms, tokens }, seen };
}

/** The error that says which examples were in the batches, and what is left of the run. */
function diverged(problem: string, seen: readonly string[], { checkpoint }: TrainOptions): DivergenceError {
  const examples = seen.filter((text) => text !== "").join("; ");
  const kept = checkpoint && checkpoint.step > 0;
  return new DivergenceError(
    problem +
      (examples === "" ? "" : ` (${examples})`) +
      (kept ? `; ${checkpoint.options.folder} holds the run after step ${checkpoint.step}` : ""),
  );
}
