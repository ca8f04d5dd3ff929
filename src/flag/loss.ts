import { forward } from "../model/forward.js";
import { type HeadInput, headCrossEntropy, headKl } from "../model/head-loss.js";
import type { Model } from "../model/model.js";
import { embedding } from "../ops/embedding.js";
import type { KlDirection } from "../ops/kl.js";
import { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import type { SyncLoss } from "../train/trainer.js";
import type { FlaggedModel } from "./vocab.js";

/** A harmful conversation with the place of its flag. */
export interface HarmfulSequence {
  /** Ids before the response: x. */
  readonly prompt: readonly number[];
  /** Ids of the response: y, n of them. */
  readonly response: readonly number[];
  /** The first position that should flag: k. */
  readonly onset: number;
  /** The flag stands before y[i], k <= i < n. */
  readonly insertAt: number;
  /** Which of several flags; the model's first where nothing is said. */
  readonly flagId?: number;
  /** Where its example stands in the data, counted from 0: for messages. */
  readonly index?: number;
  /** Whether adversarial training is to search a perturbation for it. */
  readonly isAttacked?: boolean;
  /** Added to the input embeddings of the first ids, up to y[i - 1] at most: (positions, hidden) in one row. */
  readonly perturbation?: Float32Array;
}

/** A benign conversation. */
export interface BenignSequence {
  readonly prompt: readonly number[];
  readonly response: readonly number[];
  readonly index?: number;
}

export interface FlagBatch {
  readonly harmful: readonly HarmfulSequence[];
  readonly benign: readonly BenignSequence[];
  /** Of the adapter's dropout, in [0, 2^32); without it nothing is dropped. */
  readonly dropoutSeed?: number;
}

/** Weights and forms of the three terms (PAPER.md, "Training objective"). */
export interface FlagLossOptions {
  readonly ce: number;
  readonly post: number;
  readonly benign: number;
  /**
   * Each term is the mean over its positions in a conversation, or their sum, as the paper writes it for one pair;
   * and then the mean over the batch's conversations.
   */
  readonly reduction: "mean" | "sum";
  /** `forward`: KL(π_θ ‖ π_ref). */
  readonly klDirection: KlDirection;
}

export const FLAG_LOSS: FlagLossOptions = {
  ce: 1,
  post: 1,
  benign: 1,
  reduction: "mean",
  klDirection: "forward",
};

/** Rows of a padded batch, in the model's and the reference's numbering. */
interface Layout {
  /** (sequences · length), padded on the right: a causal model never looks there. */
  readonly ids: Uint32Array;
  readonly refIds: Uint32Array;
  readonly sequences: number;
  /** Ids that are no padding. */
  readonly tokens: number;
  /** Rows whose next token should be the flag, and which flag. */
  readonly ce: number[];
  readonly flags: number[];
  /** Rows that should go on as the reference does, those after a flag first; and the reference's twins. */
  readonly kl: number[];
  readonly refKl: number[];
  /** How many of them come after a flag. */
  readonly post: number;
}

/**
 * Lays a batch out: sequences with the flag in place for the model, without for the reference.
 * @param defaultFlag the flag of sequences that name none
 */
export function layout(batch: FlagBatch, defaultFlag: number): Layout {
  const withFlag = batch.harmful.map(({ prompt, response, insertAt, flagId = defaultFlag }) => [
    ...prompt,
    ...response.slice(0, insertAt),
    flagId,
    ...response.slice(insertAt, -1),
  ]);
  const withoutFlag = batch.harmful.map(({ prompt, response }) => [...prompt, ...response.slice(0, -1)]);
  const benign = batch.benign.map(({ prompt, response }) => [...prompt, ...response.slice(0, -1)]);

  const sequences = [...withFlag, ...benign];
  const references = [...withoutFlag, ...benign];
  const width = Math.max(...sequences.map((ids) => ids.length));
  const refWidth = Math.max(...references.map((ids) => ids.length));
  const rows: Pick<Layout, "ce" | "flags" | "kl" | "refKl"> = { ce: [], flags: [], kl: [], refKl: [] };
  batch.harmful.forEach(({ prompt, response, onset, insertAt, flagId = defaultFlag }, s) => {
    // Row r of a sequence predicts its token r + 1; before y[0] stands the prompt's last token.
    const before = prompt.length - 1;
    for (let j = onset; j <= insertAt; j++) {
      rows.ce.push(s * width + before + j);
      rows.flags.push(flagId);
    }
    for (let t = insertAt; t < response.length; t++) {
      rows.kl.push(s * width + before + t + 1);
      rows.refKl.push(s * refWidth + before + t);
    }
  });
  const post = rows.kl.length;
  batch.benign.forEach(({ prompt, response }, i) => {
    const s = batch.harmful.length + i;
    for (let t = 0; t < response.length; t++) {
      rows.kl.push(s * width + prompt.length - 1 + t);
      rows.refKl.push(s * refWidth + prompt.length - 1 + t);
    }
  });
  return {
    ...rows,
    ids: padded(sequences, width),
    refIds: padded(references, refWidth),
    sequences: sequences.length,
    tokens: sequences.reduce((sum, ids) => sum + ids.length, 0),
    post,
  };
}

/** Sequences as one row of ids, each padded on the right with 0. */
export function padded(sequences: readonly (readonly number[])[], width: number): Uint32Array {
  const ids = new Uint32Array(sequences.length * width);
  sequences.forEach((sequence, i) => {
    ids.set(sequence, i * width);
  });
  return ids;
}

/** Rows of the residual stream by index. */
function rowsAt(tape: Tape, hidden: Tensor, rows: readonly number[]): Tensor {
  return embedding(tape, hidden, tape.from(Uint32Array.from(rows)));
}

/**
 * The red-flag loss (PAPER.md): cross-entropy of the flag at the positions from the onset to where it stands,
 * divergence from the reference after it, and on benign conversations. The reference is the same weights with
 * the adapter off.
 */
export function redFlagLoss(
  flagged: FlaggedModel,
  options: FlagLossOptions = FLAG_LOSS,
): SyncLoss<FlagBatch> {
  return (tape, batch, scale) => {
    const at = layout(batch, flagged.flagId);
    const shares = {
      ce: rowShares(
        batch.harmful.map(({ onset, insertAt }) => insertAt - onset + 1),
        options.reduction,
      ),
      post: rowShares(
        batch.harmful.map(({ response, insertAt }) => response.length - insertAt),
        options.reduction,
      ),
      benign: rowShares(
        batch.benign.map(({ response }) => response.length),
        options.reduction,
      ),
    };
    const weightsOf = (...terms: (keyof typeof shares)[]) =>
      tape.from(
        Float32Array.from(
          terms.flatMap((term) => shares[term].map((share) => scale * options[term] * share)),
        ),
      );

    const reference = at.kl.length > 0 ? referenceRows(tape, flagged, batch, at) : undefined;
    const { model, adapter } = flagged;
    const { dropoutSeed: seed } = batch;
    const overlay = adapter && seed !== undefined ? adapter.dropping(seed) : flagged.overlay;
    const perturbation = perturbationOf(tape, batch, at.ids.length / at.sequences, model);
    const hidden = forward(tape, model, at.ids, { batch: at.sequences, overlay, perturbation });
    let ceRows: Tensor | undefined;
    if (at.ce.length > 0) {
      const targets = tape.from(Uint32Array.from(at.flags));
      const input = { hidden: rowsAt(tape, hidden, at.ce), overlay };
      ceRows = headCrossEntropy(tape, model, input, targets, weightsOf("ce"));
    }
    let klRows: Tensor | undefined;
    if (reference) {
      const input = { hidden: rowsAt(tape, hidden, at.kl), overlay };
      klRows = headKl(tape, model, input, reference, weightsOf("post", "benign"), options.klDirection);
    }
    return async () => {
      const ce = (await ceRows?.read()) ?? [];
      const divergences = (await klRows?.read()) ?? new Float32Array();
      const rows = { ce, post: divergences.subarray(0, at.post), benign: divergences.subarray(at.post) };
      const terms: Record<string, number> = {};
      let loss = 0;
      for (const term of ["ce", "post", "benign"] as const) {
        terms[term] = shares[term].reduce((sum, share, i) => sum + share * (rows[term][i] as number), 0);
        loss += options[term] * terms[term];
      }
      return { loss, terms, tokens: at.tokens };
    };
  };
}

/** What the reference makes its logits of at the twins of the rows under a divergence, without a gradient. */
function referenceRows(tape: Tape, flagged: FlaggedModel, batch: FlagBatch, at: Layout): HeadInput {
  const quiet = new Tape(tape.arena, false);
  const { model, reference: overlay } = flagged;
  const perturbation = perturbationOf(quiet, batch, at.refIds.length / at.sequences, model);
  const hidden = forward(quiet, model, at.refIds, { batch: at.sequences, overlay, perturbation });
  return { hidden: rowsAt(quiet, hidden, at.refKl), overlay };
}

/** The perturbations of a batch padded to `width` ids: (sequences · width, hidden); undefined where there is none. */
function perturbationOf(
  tape: Tape,
  { harmful, benign }: FlagBatch,
  width: number,
  { config }: Model,
): Tensor | undefined {
  if (!harmful.some(({ perturbation }) => perturbation)) return undefined;
  const rows = (harmful.length + benign.length) * width;
  const values = new Float32Array(rows * config.hiddenSize);
  harmful.forEach(({ perturbation }, s) => {
    if (perturbation) values.set(perturbation, s * width * config.hiddenSize);
  });
  return tape.from(values, [rows, config.hiddenSize]);
}

/** What each row counts for in its term, given the number of rows of each conversation. */
function rowShares(counts: readonly number[], reduction: FlagLossOptions["reduction"]): number[] {
  return counts.flatMap((count) => {
    const share = 1 / (counts.length * (reduction === "mean" ? count : 1));
    return new Array<number>(count).fill(share);
  });
}
