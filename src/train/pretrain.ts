import type { Model } from "../model/model.js";
import { Random } from "../random.js";
import { Checkpoint, type CheckpointOptions } from "./checkpoint.js";
import { type Corpus, windows } from "./corpus.js";
import { digestOf, digestOfParameters, type Fingerprint, factsOf } from "./fingerprint.js";
import { heldOutLoss } from "./held-out.js";
import { languageLoss } from "./language.js";
import { type TrainOptions, type TrainStep, train } from "./trainer.js";

/** How a base model is trained. */
export interface PretrainOptions extends Omit<TrainOptions, "checkpoint" | "validation"> {
  /** Windows a batch. */
  readonly batch: number;
  readonly seed: number;
  readonly checkpoint?: CheckpointOptions | undefined;
  /** Text that is not trained on; `TrainStep.validation` is its `HeldOutLoss`, every so many steps. */
  readonly holdout?: { readonly corpus: Corpus; readonly every: number } | undefined;
}

/** Trains all weights of a model to predict each next token of the corpus. Throws as `train`. */
export async function* pretrain(
  model: Model,
  corpus: Corpus,
  options: PretrainOptions,
): AsyncGenerator<TrainStep> {
  const { checkpoint, holdout, ...rest } = options;
  const batches = windows(corpus, options.batch, model.config.contextLength, new Random(options.seed));
  yield* train(model.weights, languageLoss(model), batches, {
    ...rest,
    checkpoint: checkpoint && new Checkpoint(checkpoint, await fingerprintOf(model, corpus, options)),
    validation: holdout && {
      every: holdout.every,
      measure: async () => ({ ...(await heldOutLoss(model, holdout.corpus, options.batch)) }),
    },
  });
}

/** What decides the run's numbers. */
async function fingerprintOf(model: Model, corpus: Corpus, options: PretrainOptions): Promise<Fingerprint> {
  // A limit to stop at, what is measured in passing, and what is kept where change no number of the run.
  const { checkpoint, holdout, signal, divergence, gradientCheckpointing, ...settings } = options;
  return {
    ...factsOf(settings),
    ...factsOf(model.config, "model."),
    "initial weights": await digestOfParameters(model.weights),
    data: await digestOf(corpus.ids as Uint32Array<ArrayBuffer>),
  };
}
