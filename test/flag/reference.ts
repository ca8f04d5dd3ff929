import type { FlagBatch, FlagLossOptions } from "../../src/flag/loss.js";
import { type ReferenceModel, referenceLogits, softmax } from "../model/reference.js";

/** The loss in float64, as PAPER.md writes it: every position by a pass of its own, nothing shared with `src`. */

/** What follows the ids, at a perturbation of the first ones' embeddings. */
export const nextAfter = (m: ReferenceModel, ids: readonly number[], perturbation?: ArrayLike<number>) =>
  softmax(referenceLogits(m, ids, perturbation).at(-1) ?? []);

export function divergence(p: readonly number[], q: readonly number[]): number {
  return p.reduce((sum, value, i) => sum + value * Math.log(value / (q[i] ?? 0)), 0);
}

export interface ReferenceTerms {
  readonly ce: number;
  readonly post: number;
  readonly benign: number;
}

/**
 * The three terms.
 * @param now the model in training
 * @param before its reference
 * @param defaultFlag the flag of sequences that name none
 */
export function referenceTerms(
  batch: FlagBatch,
  now: ReferenceModel,
  before: ReferenceModel,
  options: FlagLossOptions,
  defaultFlag: number,
): ReferenceTerms {
  const kl = (a: readonly number[], b: readonly number[], delta?: ArrayLike<number>) =>
    options.klDirection === "forward"
      ? divergence(nextAfter(now, a, delta), nextAfter(before, b, delta))
      : divergence(nextAfter(before, b, delta), nextAfter(now, a, delta));
  // One list of positions for each conversation.
  const values = { ce: [] as number[][], post: [] as number[][], benign: [] as number[][] };
  const positions = (from: number, to: number, value: (position: number) => number) =>
    Array.from({ length: to - from }, (_, p) => value(from + p));
  for (const sequence of batch.harmful) {
    const {
      prompt: x,
      response: y,
      onset: k,
      insertAt: i,
      flagId: rf = defaultFlag,
      perturbation,
    } = sequence;
    values.ce.push(
      positions(k, i + 1, (j) => -Math.log(nextAfter(now, [...x, ...y.slice(0, j)], perturbation)[rf] ?? 0)),
    );
    values.post.push(
      positions(i, y.length, (t) =>
        kl([...x, ...y.slice(0, i), rf, ...y.slice(i, t)], [...x, ...y.slice(0, t)], perturbation),
      ),
    );
  }
  for (const { prompt: b, response: z } of batch.benign) {
    values.benign.push(positions(0, z.length, (t) => kl([...b, ...z.slice(0, t)], [...b, ...z.slice(0, t)])));
  }
  const sum = (list: readonly number[]) => list.reduce((total, value) => total + value, 0);
  const reduce = (lists: readonly (readonly number[])[]) =>
    sum(lists.map((list) => sum(list) / (options.reduction === "mean" ? list.length : 1))) /
    Math.max(1, lists.length);
  return { ce: reduce(values.ce), post: reduce(values.post), benign: reduce(values.benign) };
}

export const weighted = (terms: ReferenceTerms, options: FlagLossOptions) =>
  options.ce * terms.ce + options.post * terms.post + options.benign * terms.benign;
