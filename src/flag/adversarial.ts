import { forward } from "../model/forward.js";
import { headCrossEntropy } from "../model/head-loss.js";
import type { Model } from "../model/model.js";
import { embedding } from "../ops/embedding.js";
import { Tape } from "../tape.js";
import type { Parameters } from "../tensor.js";
import type { Loss } from "../train/trainer.js";
import { type FlagBatch, type FlagLossOptions, type HarmfulSequence, padded, redFlagLoss } from "./loss.js";
import type { FlaggedModel } from "./vocab.js";

/**
 * Adversarial training of the flag (PAPER.md, RF-AT, Eq. 5): min over θ of the loss at the worst perturbation δ of
 * a harmful conversation's input embeddings that an ℓ2 ball holds. δ begins at 0 and climbs the cross-entropy of the
 * flag by steps along the gradient's sign, back into the ball after each.
 *
 * Measured on stories260K (batches of 4 and 4 stories, ten steps, CPU time of one thread): a share of 0.125 takes 1.4
 * times as long as none, 0.5, which is every harmful conversation, 2.5 times.
 */
export interface AdversarialOptions {
  /**
   * Share of a batch's conversations that are attacked, in expectation; only harmful ones are, each by chance. 0 is
   * no adversarial training; the paper's template has 0.125.
   */
  readonly share: number;
  /** Steps of the inner maximisation, a forward and a backward pass over the attacked each. */
  readonly steps: number;
  /**
   * What a step moves every number of δ by, in the embeddings' own units. It must fit the model: a token's δ comes
   * to the ball's surface in radius / (stepSize · √hidden) steps of one direction.
   */
  readonly stepSize: number;
  /** ε: radius of the ball, in mean norms of the model's embeddings. */
  readonly radius: number;
  /**
   * What must lie in the ball: the δ of each token, whose embedding the radius is measured by, or that of all
   * tokens of a conversation together.
   */
  readonly ball: "token" | "sequence";
  /** Tokens that are attacked: those of the prompt, which the attacker owns, or also those before the flag. */
  readonly positions: "prompt" | "context";
}

/** The paper's template but for the share: adversarial training is asked for. */
export const ADVERSARIAL: AdversarialOptions = {
  share: 0,
  steps: 10,
  stepSize: 1e-4,
  radius: 0.05,
  ball: "token",
  positions: "prompt",
};

/**
 * The chance that a harmful conversation is attacked, so that in expectation `share` of the whole batch is.
 * @throws RangeError where a batch does not hold so many harmful ones
 */
export function attackProbability(share: number, batch: { harmful: number; benign: number }): number {
  if (share === 0) return 0;
  const probability = (share * (batch.harmful + batch.benign)) / batch.harmful;
  if (probability <= 1) return probability;
  throw new RangeError(
    `adversarial.share must be at most ${batch.harmful / (batch.harmful + batch.benign)}, the share of harmful ` +
      `conversations in a batch, got ${share}`,
  );
}

/** The mean ℓ2 norm of the rows of the model's own embedding. */
export async function meanEmbeddingNorm(model: Model): Promise<number> {
  const table = await model.weight("embed.weight").read();
  const { vocabSize, hiddenSize } = model.config;
  let sum = 0;
  for (let row = 0; row < vocabSize; row++) sum += norm(table, row * hiddenSize, (row + 1) * hiddenSize);
  return sum / vocabSize;
}

/**
 * The red-flag loss in which conversations marked as attacked carry the perturbation that is the worst for the model
 * as it is at that step. All terms of such a conversation are taken at it, with the reference perturbed alike.
 * @param parameters what is trained: the search leaves their gradients alone
 */
export async function adversarialLoss(
  flagged: FlaggedModel,
  parameters: Parameters,
  lossOptions: FlagLossOptions,
  options: AdversarialOptions,
): Promise<Loss<FlagBatch>> {
  const loss = redFlagLoss(flagged, lossOptions);
  const radius = options.radius * (await meanEmbeddingNorm(flagged.model));
  return async (tape, batch, scale) => {
    const attacked = batch.harmful.filter((sequence) => sequence.isAttacked);
    if (attacked.length === 0) return loss(tape, batch, scale);
    const found = await worstPerturbations(tape, flagged, parameters, attacked, { ...options, radius });
    const harmful = batch.harmful.map((sequence) => {
      const perturbation = found.get(sequence);
      return perturbation ? { ...sequence, perturbation } : sequence;
    });
    return loss(tape, { ...batch, harmful }, scale);
  };
}

/**
 * Searches each conversation's δ: (positions, hidden) in one row, for its first ids. All are searched in one batch;
 * a gradient's sign does not depend on the weight of a conversation's loss in it.
 * The adapter drops nothing out meanwhile.
 * @param outer its arena lends memory, and has it back at the end; passes record as it does
 * @param options `radius` as an ℓ2 norm
 */
export async function worstPerturbations(
  outer: Tape,
  flagged: FlaggedModel,
  parameters: Parameters,
  sequences: readonly HarmfulSequence[],
  options: Omit<AdversarialOptions, "share">,
): Promise<Map<HarmfulSequence, Float32Array>> {
  const { hiddenSize } = flagged.model.config;
  // What is to be predicted as the flag lies in front of it, so nothing behind it matters.
  const contexts = sequences.map(({ prompt, response, insertAt }) => [
    ...prompt,
    ...response.slice(0, insertAt),
  ]);
  const width = Math.max(...contexts.map((ids) => ids.length));
  const ids = padded(contexts, width);
  const rows = sequences.flatMap(({ prompt, onset, insertAt }, s) =>
    Array.from({ length: insertAt - onset + 1 }, (_, j) => s * width + prompt.length - 1 + onset + j),
  );
  const flags = sequences.flatMap(({ onset, insertAt, flagId = flagged.flagId }) =>
    new Array<number>(insertAt - onset + 1).fill(flagId),
  );

  const perturbations = new Float32Array(ids.length * hiddenSize);
  const parts = sequences.map(({ prompt, insertAt }, s) => {
    const attacked = prompt.length + (options.positions === "context" ? insertAt : 0);
    const from = s * width * hiddenSize;
    return perturbations.subarray(from, from + attacked * hiddenSize);
  });
  for (let step = 0; step < options.steps; step++) {
    const gradient = await flagGradient(outer, flagged, parameters, {
      ids,
      batch: sequences.length,
      rows,
      flags,
      perturbations,
    });
    for (const part of parts) {
      const from = part.byteOffset / part.BYTES_PER_ELEMENT;
      part.forEach((value, i) => {
        part[i] = value + options.stepSize * Math.sign(gradient[from + i] as number);
      });
      project(part, options.ball === "token" ? hiddenSize : part.length, options.radius);
    }
  }
  return new Map(sequences.map((sequence, s) => [sequence, parts[s] as Float32Array]));
}

/** A padded batch whose flag is to be missed. */
interface InnerProblem {
  readonly ids: Uint32Array;
  readonly batch: number;
  /** Rows whose next token should be a flag, and which. */
  readonly rows: readonly number[];
  readonly flags: readonly number[];
  /** (ids, hidden) in one row. */
  readonly perturbations: Float32Array;
}

/** The gradient of Σ -ln P(flag) over the rows in the perturbations. */
async function flagGradient(
  { arena, options }: Tape,
  { model, overlay }: FlaggedModel,
  parameters: Parameters,
  { ids, batch, rows, flags, perturbations }: InnerProblem,
): Promise<Float32Array> {
  const mark = arena.mark();
  const tape = new Tape(arena, true, options);
  const perturbation = tape.from(perturbations, [ids.length, model.config.hiddenSize]);
  perturbation.requiresGrad = true;
  asConstants(parameters, () => {
    const all = forward(tape, model, ids, { batch, overlay, perturbation });
    const hidden = embedding(tape, all, tape.from(Uint32Array.from(rows)));
    const targets = tape.from(Uint32Array.from(flags));
    headCrossEntropy(tape, model, { hidden, overlay }, targets, tape.filled([rows.length], 1));
    tape.backward();
  });
  const gradient = await tape.grad(perturbation).read();
  arena.release(mark);
  return gradient;
}

/** Runs a forward and its backward that pass the parameters' gradients by. */
function asConstants(parameters: Parameters, body: () => void): void {
  const trained = [...parameters.entries()].map(([, tensor]) => tensor).filter((x) => x.requiresGrad);
  for (const tensor of trained) tensor.requiresGrad = false;
  try {
    body();
  } finally {
    for (const tensor of trained) tensor.requiresGrad = true;
  }
}

/** Scales every row of `length` values that is longer than the radius down to it. */
function project(values: Float32Array, length: number, radius: number): void {
  for (let from = 0; from < values.length; from += length) {
    const size = norm(values, from, from + length);
    if (size <= radius) continue;
    for (let i = from; i < from + length; i++) values[i] = (values[i] as number) * (radius / size);
  }
}

/** The ℓ2 norm of values `from` to `to`, in float64. */
function norm(values: Float32Array, from: number, to: number): number {
  let sum = 0;
  for (let i = from; i < to; i++) sum += (values[i] as number) ** 2;
  return Math.sqrt(sum);
}

/** @throws RangeError naming the option that is out of its range */
export function checkAdversarial(options: AdversarialOptions): void {
  const { share, steps, ball, positions } = options;
  if (!(share >= 0 && share <= 1)) {
    throw new RangeError(`adversarial.share must be a number from 0 to 1, got ${share}`);
  }
  if (!Number.isInteger(steps) || steps < 1) {
    throw new RangeError(`adversarial.steps must be an integer from 1, got ${steps}`);
  }
  for (const name of ["stepSize", "radius"] as const) {
    const value = options[name];
    if (!(value >= 0 && Number.isFinite(value))) {
      throw new RangeError(`adversarial.${name} must be a number from 0, got ${value}`);
    }
  }
  if (ball !== "token" && ball !== "sequence") {
    throw new RangeError(`adversarial.ball must be token or sequence, got '${ball}'`);
  }
  if (positions !== "prompt" && positions !== "context") {
    throw new RangeError(`adversarial.positions must be prompt or context, got '${positions}'`);
  }
}
