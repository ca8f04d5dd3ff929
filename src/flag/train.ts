import type { Example } from "../formats/jsonl.js";
import type { Adapter } from "../model/adapter.js";
import { linearLayers } from "../model/config.js";
import type { FullTuning } from "../model/full-tuning.js";
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
import { type CompleteOptions, completeSequences } from "./complete.js";
import { flagBatches, trainingSequences, type UsableSequences, usable } from "./data.js";
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
   * model; 1 leaves them as they are drawn. Batches of one length each are the worse teacher: on the stories of
   * examples/stories.mjs 16 trains 12 % faster, but to a divergence of 0.034 to 0.038 nats a token instead of 0.02.
   */
  readonly bucket: number;
  /**
   * What is trained besides the flag's row: low-rank additions to a frozen model, or all weights. These are in
   * memory twice then, since the model as it was stays the reference, and are saved as a whole model.
   */
  readonly method: "lora" | "full";
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
  /**
   * Most tokens of a response that the model writes, before training, to an example that brings none; 0 leaves such
   * examples out.
   */
  readonly complete: number;
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
  bucket: 1,
  method: "lora",
  rank: 64,
  alpha: 16,
  dropout: 0,
  targets: "all",
  loss: FLAG_LOSS,
  adversarial: ADVERSARIAL,
  placement: "uniform",
  minOffset: 0,
  maxResponse: 512,
  complete: 0,
  divergence: DIVERGENCE,
  seed: 0,
};

/** Data and hyperparameters of a run. */
export interface RedFlagTraining extends Partial<Omit<RedFlagHyperparameters, "loss" | "adversarial">> {
  readonly harmful: readonly Example[];
  readonly benign: readonly Example[];
  readonly loss?: Partial<FlagLossOptions>;
  readonly adversarial?: Partial<AdversarialOptions>;
  /** Called after every response that `complete` has the model write, with their number so far and in all. */
  readonly onResponse?: (done: number, total: number) => void;
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
  /** Examples whose response the model has written, by `complete`. */
  readonly completed: { readonly harmful: number; readonly benign: number };
  /**
   * Writes the adapter as a PEFT folder, or a model that was trained whole as one of Hugging Face, beside and then
   * renamed; then the checkpoint goes. Node only.
   */
  save(path: string): Promise<void>;
}

/**
 * Trains the flag: low-rank additions to the linear layers and the flag's row, everything else frozen; or, by
 * `method`, all weights.
 * @throws RangeError for a hyperparameter out of its range, or data of which nothing can be used; what `train`
 * throws
 */
export async function trainRedFlag(flagged: FlaggedModel, training: RedFlagTraining): Promise<RedFlagRun> {
  const { harmful, benign, onResponse, onStep, signal, checkpoint, ...given } = training;
  const hyper = {
    ...RED_FLAG_DEFAULTS,
    ...given,
    loss: { ...FLAG_LOSS, ...training.loss },
    adversarial: { ...ADVERSARIAL, ...training.adversarial },
  };
  checkHyperparameters(hyper);
  const sizes = { harmful: hyper.harmfulBatch, benign: hyper.benignBatch };
  const attacked = attackProbability(hyper.adversarial.share, sizes);
  const found = await trainingData(flagged, hyper, { harmful, benign, onResponse, signal });
  expectUsable("harmful", found.harmful, hyper.harmfulBatch);
  expectUsable("benign", found.benign, hyper.benignBatch);

  const tuning = await attached(flagged, hyper);
  const dealt = {
    ...sizes,
    bucket: hyper.bucket,
    placement: hyper.placement,
    dropout: hyper.method === "lora" && hyper.dropout > 0,
    attacked,
  };
  const random = new Random(hyper.seed + 1);
  const batches = flagBatches(found.harmful.sequences, found.benign.sequences, dealt, random);
  const loss =
    attacked > 0
      ? await adversarialLoss(flagged, tuning.parameters, hyper.loss, hyper.adversarial)
      : redFlagLoss(flagged, hyper.loss);
  const warmup = hyper.warmup < 1 ? Math.ceil(hyper.warmup * hyper.steps) : hyper.warmup;

  const keeper =
    checkpoint &&
    new Checkpoint(
      checkpoint,
      await redFlagFingerprint(flagged, hyper, {
        harmful: found.harmful.sequences,
        benign: found.benign.sequences,
      }),
    );
  const steps: TrainStep[] = [];
  for await (const step of train(tuning.parameters, loss, batches, {
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
    leftOut: { harmful: found.harmful.leftOut, benign: found.benign.leftOut },
    completed: { harmful: found.harmful.completed, benign: found.benign.completed },
    async save(path) {
      await saveRedFlag(flagged, path);
      if (checkpoint) await removeCheckpoint(checkpoint.folder);
    },
  };
}

type DataOptions = Pick<RedFlagTraining, "harmful" | "benign"> &
  Pick<CompleteOptions, "signal" | "onResponse">;

/** Sequences of one kind, and how many of them have a response that the model wrote. */
interface TrainingData extends UsableSequences {
  readonly completed: number;
}

/** Reads the examples, and lets the model write the responses that are missing where that is wanted. */
async function trainingData(
  flagged: FlaggedModel,
  hyper: RedFlagHyperparameters,
  { harmful, benign, signal, onResponse }: DataOptions,
): Promise<{ harmful: TrainingData; benign: TrainingData }> {
  const { tokenizer, config } = flagged.model;
  if (!tokenizer) throw new RangeError("trainRedFlag: the model has no tokenizer to read examples with");
  const options = {
    ...hyper,
    contextLength: config.contextLength,
    flagFor: (category: string | undefined) => flagged.flagFor(category),
  };
  const maxTokens = Math.min(hyper.complete, hyper.maxResponse);
  const random = new Random(hyper.seed + 2);
  const read = async (kind: "harmful" | "benign", examples: readonly Example[]) => {
    const given = trainingSequences(tokenizer, examples, kind, options);
    const { sequences, completed } = await completeSequences(flagged, given, {
      maxTokens,
      random,
      signal,
      onResponse,
    });
    return { ...usable(sequences, kind, hyper), completed };
  };
  // One after the other: they draw from one generator.
  return { harmful: await read("harmful", harmful), benign: await read("benign", benign) };
}

/** Gives the model what is to be trained, fresh. */
async function attached(
  flagged: FlaggedModel,
  { method, rank, alpha, dropout, targets, seed }: RedFlagHyperparameters,
): Promise<Adapter | FullTuning> {
  if (method === "full") return flagged.attachFull();
  const layers = targetLayers(flagged, targets);
  return flagged.attach({ rank, alpha, targets: layers, ...(dropout > 0 ? { dropout } : {}) }, seed);
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
    complete: 0,
    minOffset: 0,
  };
  for (const [name, least] of Object.entries(integers)) {
    const value = hyper[name as keyof typeof integers];
    if (!Number.isInteger(value) || value < least) {
      throw new RangeError(`${name} must be an integer from ${least}, got ${value}`);
    }
  }
  const choices = {
    method: [hyper.method, "lora", "full"],
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
