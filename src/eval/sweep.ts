import { DivergenceError } from "../errors.js";
import { type FlagSequence, usableSequences } from "../flag/data.js";
import { FlagScorer } from "../flag/score.js";
import { trainRedFlag } from "../flag/train.js";
import { addRedFlag, type FlaggedModel, type RedFlagOptions } from "../flag/vocab.js";
import type { Example } from "../formats/jsonl.js";
import type { Model } from "../model/model.js";
import type { TrainStep } from "../train/trainer.js";
import type { SweepFailure, SweepPoint } from "./evaluation.js";
import type { GridPoint } from "./grid.js";
import { auroc, tprAtFpr } from "./metrics.js";

/** Harmful and benign items of one kind. */
export interface BothClasses<T> {
  readonly harmful: readonly T[];
  readonly benign: readonly T[];
}

/** Held-out conversations as ids, and how many examples of each class cannot be used. */
export interface HeldOut extends BothClasses<FlagSequence> {
  readonly leftOut: { readonly harmful: number; readonly benign: number };
}

export interface SweepOptions {
  /** How the flag enters the vocabulary; its seed is the point's. */
  readonly flag?: RedFlagOptions;
  readonly training: BothClasses<Example>;
  readonly heldOut: HeldOut;
  /** Called after every step of every training. */
  readonly onStep?: (point: GridPoint, step: TrainStep) => void;
  /** Ends the sweep between two steps. */
  readonly signal?: AbortSignal;
}

/**
 * The conversations that a sweep measures on: the same for all of its points.
 * @param maxResponse most tokens of a response
 * @throws RangeError where none of a class can be used, or the model has no tokenizer
 */
export function heldOutConversations(
  { config: { contextLength }, tokenizer }: Model,
  { harmful, benign }: BothClasses<Example>,
  maxResponse: number,
): HeldOut {
  if (!tokenizer) throw new RangeError("sweep: the model has no tokenizer to read examples with");
  const usable = (examples: readonly Example[], kind: "harmful" | "benign") => {
    const found = usableSequences(tokenizer, examples, kind, { maxResponse, contextLength, minOffset: 0 });
    if (found.sequences.length > 0) return found;
    throw new RangeError(`held-out ${kind}: none of the ${examples.length} examples can be used`);
  };
  const [h, b] = [usable(harmful, "harmful"), usable(benign, "benign")];
  return {
    ...{ harmful: h.sequences, benign: b.sequences },
    leftOut: { harmful: h.leftOut, benign: b.leftOut },
  };
}

/**
 * Trains a flag anew at every point of a grid, over one and the same model, and measures it on held-out data. A
 * training that diverges is a result too: the sweep goes on.
 */
export async function* sweepRedFlag(
  model: Model,
  points: readonly GridPoint[],
  { flag, training, heldOut, onStep, signal }: SweepOptions,
): AsyncGenerator<SweepPoint | SweepFailure> {
  for (const point of points) {
    const { values, hyperparameters } = point;
    const { seed } = hyperparameters;
    const flagged = await addRedFlag(model, { ...flag, seed });
    try {
      await trainRedFlag(flagged, {
        ...hyperparameters,
        ...training,
        onStep: (step) => onStep?.(point, step),
        ...(signal && { signal }),
      });
      yield { values, seed, ...(await measure(flagged, heldOut)) };
    } catch (error) {
      if (!(error instanceof DivergenceError)) throw error;
      yield { values, seed, reason: error.message };
    } finally {
      flagged.dispose();
    }
  }
}

/**
 * What the flag finds by its highest probability along a response, and what it costs on benign text.
 * @throws DivergenceError where a figure is no number
 */
async function measure(
  flagged: FlaggedModel,
  { harmful, benign }: HeldOut,
): Promise<Omit<SweepPoint, "values" | "seed">> {
  const scorer = new FlagScorer(flagged);
  try {
    const scores: { positive: number[]; negative: number[] } = { positive: [], negative: [] };
    for (const sequence of harmful) scores.positive.push((await scorer.score(sequence)).max);
    const sums = { tokens: 0, kl: 0, loss: 0, refLoss: 0 };
    for (const sequence of benign) {
      scores.negative.push((await scorer.score(sequence)).max);
      const { tokens, kl, loss, refLoss } = await scorer.utility(sequence);
      sums.tokens += tokens;
      sums.kl += kl;
      sums.loss += loss;
      sums.refLoss += refLoss;
    }
    // The last step's update is seen by no later loss.
    if ([...scores.positive, ...scores.negative].some(Number.isNaN)) {
      throw new DivergenceError("after the last step P(flag) is NaN");
    }
    const cost = {
      kl_per_token: sums.kl / sums.tokens,
      perplexity_ratio: Math.exp((sums.loss - sums.refLoss) / sums.tokens),
    };
    for (const [name, value] of Object.entries(cost)) {
      if (!Number.isFinite(value)) throw new DivergenceError(`after the last step ${name} is ${value}`);
    }
    return { auroc: auroc(scores), tpr_at_1_percent_fpr: tprAtFpr(scores, 0.01).tpr, ...cost };
  } finally {
    scorer.dispose();
  }
}
