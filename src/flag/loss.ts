import { forward, head } from "../model/forward.js";
import { crossEntropy } from "../ops/cross-entropy.js";
import { embedding } from "../ops/embedding.js";
import { type KlDirection, kl } from "../ops/kl.js";
import { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import type { Loss } from "../train/trainer.js";
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
}

/** A benign conversation. */
export interface BenignSequence {
  readonly prompt: readonly number[];
  readonly response: readonly number[];
}

export interface FlagBatch {
  readonly harmful: readonly HarmfulSequence[];
  readonly benign: readonly BenignSequence[];
}

/** Weights and forms of the three terms (PAPER.md, "Training objective"). */
export interface FlagLossOptions {
  readonly ce: number;
  readonly post: number;
  readonly benign: number;
  /** Each term is the mean over its positions in the batch, or their sum. */
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
  /** Rows whose next token should be the flag. */
  readonly ce: number[];
  /** Rows that should go on as the reference does, those after a flag first; and the reference's twins. */
  readonly kl: number[];
  readonly refKl: number[];
  /** How many of them come after a flag. */
  readonly post: number;
}

/** Lays a batch out: sequences with the flag in place for the model, without for the reference. */
export function layout(batch: FlagBatch, flagId: number): Layout {
  const withFlag = batch.harmful.map(({ prompt, response, insertAt }) => [
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
  const rows: Pick<Layout, "ce" | "kl" | "refKl"> = { ce: [], kl: [], refKl: [] };
  batch.harmful.forEach(({ prompt, response, onset, insertAt }, s) => {
    // Row r of a sequence predicts its token r + 1; before y[0] stands the prompt's last token.
    const before = prompt.length - 1;
    for (let j = onset; j <= insertAt; j++) rows.ce.push(s * width + before + j);
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
    post,
  };
}

function padded(sequences: readonly (readonly number[])[], width: number): Uint32Array {
  const ids = new Uint32Array(sequences.length * width);
  sequences.forEach((sequence, i) => {
    ids.set(sequence, i * width);
  });
  return ids;
}

/** Rows of the residual stream by index, as logits. */
function logitsAt(
  tape: Tape,
  flagged: FlaggedModel,
  hidden: Tensor,
  rows: readonly number[],
  reference: boolean,
): Tensor {
  const picked = embedding(tape, hidden, tape.from(Uint32Array.from(rows)));
  return head(tape, flagged.model, picked, reference ? flagged.reference : flagged.overlay);
}

/**
 * The red-flag loss (PAPER.md): cross-entropy of the flag at the positions from the onset to where it stands,
 * divergence from the reference after it, and on benign conversations. The reference is the same weights with
 * the adapter off.
 */
export function redFlagLoss(flagged: FlaggedModel, options: FlagLossOptions = FLAG_LOSS): Loss<FlagBatch> {
  return (tape, batch, scale) => {
    const at = layout(batch, flagged.flagId);
    const counts = { ce: at.ce.length, post: at.post, benign: at.kl.length - at.post };
    const weightOf = (term: keyof typeof counts) =>
      options[term] / (options.reduction === "mean" ? Math.max(1, counts[term]) : 1);

    const refLogits = at.kl.length > 0 ? referenceLogits(tape, flagged, at) : undefined;
    const hidden = forward(tape, flagged.model, at.ids, { batch: at.sequences, overlay: flagged.overlay });
    let ceRows: Tensor | undefined;
    if (at.ce.length > 0) {
      const targets = tape.from(new Uint32Array(at.ce.length).fill(flagged.flagId));
      const weights = tape.filled([at.ce.length], scale * weightOf("ce"));
      ceRows = crossEntropy(tape, logitsAt(tape, flagged, hidden, at.ce, false), targets, weights);
    }
    let klRows: Tensor | undefined;
    if (refLogits) {
      const weights = Float32Array.from(at.kl, (_, i) => scale * weightOf(i < at.post ? "post" : "benign"));
      const logits = logitsAt(tape, flagged, hidden, at.kl, false);
      klRows = kl(tape, logits, refLogits, tape.from(weights), options.klDirection);
    }
    return async () => {
      const ce = sum((await ceRows?.read()) ?? []);
      const divergences = (await klRows?.read()) ?? new Float32Array();
      const sums = {
        ce,
        post: sum(divergences.subarray(0, at.post)),
        benign: sum(divergences.subarray(at.post)),
      };
      const terms: Record<string, number> = {};
      let loss = 0;
      for (const term of ["ce", "post", "benign"] as const) {
        terms[term] = sums[term] / (options.reduction === "mean" ? Math.max(1, counts[term]) : 1);
        loss += options[term] * terms[term];
      }
      return { loss, terms, tokens: at.ids.length };
    };
  };
}

/** The reference's logits at the twins of the rows under a divergence, without a gradient. */
function referenceLogits(tape: Tape, flagged: FlaggedModel, at: Layout): Tensor {
  const quiet = new Tape(tape.arena, false);
  const hidden = forward(quiet, flagged.model, at.refIds, {
    batch: at.sequences,
    overlay: flagged.reference,
  });
  return logitsAt(quiet, flagged, hidden, at.refKl, true);
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
