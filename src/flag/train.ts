import type { Example } from "../formats/jsonl.js";
import { linearLayers } from "../model/config.js";
import { Random } from "../random.js";
import { Checkpoint, type CheckpointOptions, removeCheckpoint } from "../train/checkpoint.js";
import { DIVERGENCE } from "../train/divergence.js";
import { type TrainStep, train } from "../train/trainer.js";
import {
  ADVERSARIAL,
  type AdversarialOptions,
  adversarialLoss,
  attackProbability,
  checkAdversarial,
} from "./adversarial.js";
import { flagBatches, type UsableSequences, usableSequences } from "./data.js";
import { redFlagFingerprint } from "./fingerprint.js";
import { FLAG_LOSS, type FlagLossOptions, redFlagLoss } from "./loss.js";
import { type Placement, placementLaw } from "./placement.js";
import { saveRedFlag } from "./store.js";
import type { FlaggedModel } from "./vocab.js";

/** What training may be told; `RED_FLAG_DEFAULTS` has the values where it is not. */
export interface RedFlagHyperparameters {
  readonly steps: number;
  /** Highest learning rate. */
  readonly lr: number;
  /** Steps of linear warm-up, or below 1 their share of all steps. */
  readonly warmup: number;
  readonly decay: "cosine" | "constant";
  readonly weightDecay: number;
  /** Most gradient norm. */
  readonly clip: number;
  /** Batches a step. */
  readonly accumulate: number;
  /** Keep less of the forward pass in memory, for a second one in the backward; the results are the same. */
  readonly gradientCheckpointing: boolean;
  /** Harmful, and benign, conversations a batch. */
  readonly harmfulBatch: number;
  readonly benignBatch: number;
  /**
   * Batches that are cut together from conversations sorted by length, so that less padding goes through the
   * model; 1 leaves them as they are drawn.
   */
  readonly bucket: number;
  /** Low-rank additions: their rank, and alpha / rank their scale. */
  readonly rank: number;
  readonly alpha: number;
  /** Share of an addition's input that is dropped, in [0, 1). */
  readonly dropout: number;
  /** Names of linear layers, without their number (`q`, `output`, …) for all or whole (`layers.3.q`), or `all`. */
  readonly targets: "all" | readonly string[];
  /** Weights and forms of the three terms. */
  readonly loss: FlagLossOptions;
  /** Adversarial training (RF-AT): off where its share is 0. */
  readonly adversarial: AdversarialOptions;
  /** Where the flag is put into a harmful response; `fixed` is the baseline Fixed-Pos. */
  readonly placement: Placement;
  /** k where an example has no `onset`: the least offset of the flag in the response. */
  readonly minOffset: number;
  /** Most tokens of a response. */
  readonly maxResponse: number;
  /** The run ends where the loss stays above this multiple of its best level (see `LossWatch`); 0 for never. */
  readonly divergence: number;
  /** Of everything random. */
  readonly seed: number;
}

export const RED_FLAG_DEFAULTS: RedFlagHyperparameters = {
  steps: 200,
  lr: 2e-4,
  warmup: 0.03,
  decay: "cosine",
  weightDecay: 0,
  clip: 1,
  accumulate: 1,
  gradientCheckpointing: false,
  harmfulBatch: 4,
  benignBatch: 4,
  bucket: 16,
  rank: 64,
  alpha: 16,
  dropout: 0,
  targets: "all",
  loss: FLAG_LOSS,
  adversarial: ADVERSARIAL,
  placement: "uniform",
  minOffset: 0,
  maxResponse: 512,
  divergence: DIVERGENCE,
  seed: 0,
};

/** Data and hyperparameters of a run. */
export interface RedFlagTraining extends Partial<Omit<RedFlagHyperparameters, "loss" | "adversarial">> {
  readonly harmful: readonly Example[];
  readonly benign: readonly Example[];
  readonly loss?: Partial<FlagLossOptions>;
  readonly adversarial?: Partial<AdversarialOptions>;
  /** Called after every step. */
  readonly onStep?: (step: TrainStep) => void;
  /** Keeps the run's state, and goes on from it. Node only. */
  readonly checkpoint?: CheckpointOptions;
  /** Ends the run between two steps, after a checkpoint where there are any; what was learned so far stays. */
  readonly signal?: AbortSignal;
}

/** A run that has ended. */
export interface RedFlagRun {
  readonly flagged: FlaggedModel;
  /** All of them, those before a checkpoint that was resumed from too. */
  readonly steps: readonly TrainStep[];
  /** Examples that could not be used. */
  readonly leftOut: { readonly harmful: number; readonly benign: number };
  /** Writes the adapter as a PEFT folder, beside and then renamed; then the checkpoint goes. Node only. */
  save(path: string): Promise<void>;
}

/**
 * Trains the flag: low-rank additions to the linear layers and the one row, everything else frozen.
 * @throws RangeError for a hyperparameter out of its range, or data of which nothing can be used; what `train`
 * throws
 */
export async function trainRedFlag(flagged: FlaggedModel, training: RedFlagTraining): Promise<RedFlagRun> {
  const { harmful, benign, onStep, signal, checkpoint, ...given } = training;
  const hyper = {
    ...RED_FLAG_DEFAULTS,
    ...given,
    loss: { ...FLAG_LOSS, ...training.loss },
    adversarial: { ...ADVERSARIAL, ...training.adversarial },
  };
  checkHyperparameters(hyper);
  const sizes = { harmful: hyper.harmfulBatch, benign: hyper.benignBatch };
  const attacked = attackProbability(hyper.adversarial.share, sizes);
  const { model } = flagged;
  if (!model.tokenizer)
    throw new RangeError("trainRedFlag: the model has no tokenizer to read examples with");
  const options = {
    ...hyper,
    contextLength: model.config.contextLength,
    flagFor: (category: string | undefined) => flagged.flagFor(category),
  };
  const usable = {
    harmful: usableSequences(model.tokenizer, harmful, "harmful", options),
    benign: usableSequences(model.tokenizer, benign, "benign", options),
  };
  expectUsable("harmful", usable.harmful, hyper.harmfulBatch);
  expectUsable("benign", usable.benign, hyper.benignBatch);

  const targets = targetLayers(flagged, hyper.targets);
  const { rank, alpha, dropout } = hyper;
  const adapter = flagged.attach({ rank, alpha, targets, ...(dropout > 0 ? { dropout } : {}) }, hyper.seed);
  const dealt = {
    ...sizes,
    bucket: hyper.bucket,
    placement: hyper.placement,
    dropout: dropout > 0,
    attacked,
  };
  const random = new Random(hyper.seed + 1);
  const batches = flagBatches(usable.harmful.sequences, usable.benign.sequences, dealt, random);
  const loss =
    attacked > 0
      ? await adversarialLoss(flagged, adapter.parameters, hyper.loss, hyper.adversarial)
      : redFlagLoss(flagged, hyper.loss);
  const warmup = hyper.warmup < 1 ? Math.ceil(hyper.warmup * hyper.steps) : hyper.warmup;

  const keeper =
    checkpoint &&
    new Checkpoint(
      checkpoint,
      await redFlagFingerprint(flagged, hyper, {
        harmful: usable.harmful.sequences,
        benign: usable.benign.sequences,
      }),
    );
  const steps: TrainStep[] = [];
  for await (const step of train(adapter.parameters, loss, batches, {
    ...hyper,
    warmup,
    signal,
    checkpoint: keeper,
  })) {
    steps.push(step);
    onStep?.(step);
  }
  return {
    flagged,
    steps: [...(keeper?.restored ?? []), ...steps],
    leftOut: { harmful: usable.harmful.leftOut, benign: usable.benign.leftOut },
    async save(path) {
      await saveRedFlag(flagged, path);
      if (checkpoint) await removeCheckpoint(checkpoint.folder);
    },
  };
}

/** Full names of the layers that `targets` names, by these or by their kind. */
function targetLayers(flagged: FlaggedModel, targets: "all" | readonly string[]): string[] {
  const layers = linearLayers(flagged.model.config);
  if (targets === "all") return layers;
  const kindOf = (name: string) => name.slice(name.lastIndexOf(".") + 1);
  const kinds = new Set(layers.map(kindOf));
  const unknown = targets.find((target) => !kinds.has(target) && !layers.includes(target));
  if (unknown !== undefined) {
    throw new RangeError(`targets: '${unknown}' is none of the model's layers: ${[...kinds].join(", ")}`);
  }
  return layers.filter((name) => targets.includes(kindOf(name)) || targets.includes(name));
}

function expectUsable(kind: string, { sequences, leftOut }: UsableSequences, batch: number): void {
  if (batch > 0 && sequences.length === 0) {
    throw new RangeError(
      `${kind}: none of the ${leftOut} examples has a prompt, a response and an onset within it`,
    );
  }
}

/** Throws RangeError naming the first hyperparameter that is out of its range. */
export function checkHyperparameters(hyper: RedFlagHyperparameters): void {
  const integers = {
    steps: 1,
    accumulate: 1,
    bucket: 1,
    rank: 1,
    maxResponse: 1,
    harmfulBatch: 0,
    benignBatch: 0,
    minOffset: 0,
  };
  for (const [name, least] of Object.entries(integers)) {
    const value = hyper[name as keyof typeof integers];
    if (!Number.isInteger(value) || value < least) {
      throw new RangeError(`${name} must be an integer from ${least}, got ${value}`);
    }
  }
  const choices = {
    decay: [hyper.decay, "cosine", "constant"],
    reduction: [hyper.loss.reduction, "mean", "sum"],
    klDirection: [hyper.loss.klDirection, "forward", "reverse"],
  };
  for (const [name, [value, ...known]] of Object.entries(choices)) {
    if (!known.includes(value ?? ""))
      throw new RangeError(`${name} must be ${known.join(" or ")}, got '${value}'`);
  }
  placementLaw(hyper.placement);
  if (hyper.targets !== "all" && !Array.isArray(hyper.targets)) {
    throw new RangeError(`targets must be 'all' or a list of names, got '${hyper.targets}'`);
  }
  const numbers = { lr: hyper.lr, warmup: hyper.warmup, weightDecay: hyper.weightDecay, clip: hyper.clip };
  const weights = { ce: hyper.loss.ce, post: hyper.loss.post, benign: hyper.loss.benign };
  for (const [name, value] of Object.entries({ ...numbers, ...weights, alpha: hyper.alpha })) {
    if (!(value >= 0)) throw new RangeError(`${name} must be a number from 0, got ${value}`);
  }
  if (!(hyper.dropout >= 0 && hyper.dropout < 1))
    throw new RangeError(`dropout must be in [0, 1), got ${hyper.dropout}`);
  checkAdversarial(hyper.adversarial);
  if (hyper.harmfulBatch + hyper.benignBatch === 0)
    throw new RangeError("a batch must hold at least one example");
}
