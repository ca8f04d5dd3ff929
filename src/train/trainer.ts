import { DivergenceError } from "../errors.js";
import { yieldToEventLoop } from "../event-loop.js";
import { Tape } from "../tape.js";
import { Arena, type Parameters } from "../tensor.js";
import type { BatchSource } from "./batches.js";
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

/**
 * A loss: runs the model on the tape and ends the graph with gradients times `scale`; the report is read once the
 * backward has been dispatched.
 */
export type Loss<Batch> = (tape: Tape, batch: Batch, scale: number) => () => Promise<LossReport>;

/** What the training loop does with a loss. */
export interface TrainOptions extends Schedule, AdamWOptions {
  /** Batches whose gradients are averaged before a step. */
  readonly accumulate: number;
  /** Most Euclidean norm of the gradient; longer ones are scaled down. Infinity for none. */
  readonly clip: number;
  /** Ends the run between two steps. */
  readonly signal?: AbortSignal | undefined;
}

/** One step of training. */
export interface TrainStep extends LossReport {
  /** Counted from 1. */
  readonly step: number;
  readonly lr: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  readonly tokensPerSecond: number;
}

/**
 * Trains `parameters`, a step at a time: the caller sees each and may stop between any two.
 * @param batches asked `accumulate` times for each step
 * @throws DivergenceError where a term or the gradient is no longer a number
 */
export async function* train<Batch>(
  parameters: Parameters,
  loss: Loss<Batch>,
  batches: BatchSource<Batch>,
  options: TrainOptions,
): AsyncGenerator<TrainStep> {
  const optimiser = new AdamW(parameters, options);
  const arena = new Arena(parameters.backend);
  try {
    for (let step = 0; step < options.steps; step++) {
      await yieldToEventLoop();
      options.signal?.throwIfAborted();
      const start = performance.now();
      const report = await gradientOf(arena, loss, batches, options.accumulate, step + 1);
      const tape = new Tape(arena, false);
      const gradientNorm = await optimiser.gradientNorm(tape);
      if (!Number.isFinite(gradientNorm)) {
        throw new DivergenceError(`step ${step + 1}: the gradient's norm is ${gradientNorm}`);
      }
      const lr = learningRate(options, step);
      optimiser.step(tape, lr, gradientNorm > options.clip ? options.clip / gradientNorm : 1);
      await parameters.backend.synchronize();
      const tokensPerSecond = (1000 * report.tokens) / (performance.now() - start);
      yield { ...report, step: step + 1, lr, gradientNorm, tokensPerSecond };
    }
  } finally {
    arena.dispose();
    optimiser.dispose();
  }
}

/** The mean loss of the batches of one step, its gradient added to the parameters'. */
async function gradientOf<Batch>(
  arena: Arena,
  loss: Loss<Batch>,
  batches: BatchSource<Batch>,
  accumulate: number,
  step: number,
): Promise<LossReport> {
  let total = 0;
  let tokens = 0;
  const terms: Record<string, number> = {};
  for (let i = 0; i < accumulate; i++) {
    arena.reset();
    const tape = new Tape(arena);
    const batch = batches.next();
    const read = loss(tape, batch, 1 / accumulate);
    tape.backward();
    const report = await read();
    for (const [name, value] of Object.entries({ ...report.terms, loss: report.loss })) {
      if (Number.isFinite(value)) continue;
      const examples = batches.describe ? ` (${batches.describe(batch)})` : "";
      throw new DivergenceError(`step ${step}, batch ${i + 1}: ${name} is ${value}${examples}`);
    }
    total += report.loss / accumulate;
    tokens += report.tokens;
    for (const [name, value] of Object.entries(report.terms))
      terms[name] = (terms[name] ?? 0) + value / accumulate;
  }
  return { loss: total, terms, tokens };
}
