import { countWithin, nextUp } from "../flag/conformal.js";
import { Ranking, type Scores } from "./ranking.js";

/**
 * Area under the receiver operating characteristic; see `RankMetrics`. NaN where there is no positive, or no
 * negative.
 * @throws RangeError for a score that is NaN: it has no rank
 */
export function auroc(scores: Scores): number {
  return new Ranking(scores).measure([]).auroc;
}

/** Average precision; see `RankMetrics`. NaN where there is no positive. Throws as `auroc`. */
export function averagePrecision(scores: Scores): number {
  return new Ranking(scores).measure([]).averagePrecision;
}

/**
 * The share of positives at or above the lowest threshold that lets at most `rate` of the negatives through.
 */
export function tprAtFpr({ positive, negative }: Scores, rate: number): { tpr: number; threshold: number } {
  const blocked = firstBlocked(negative, rate);
  const threshold = [...positive, ...negative].reduce(
    (least, s) => (s > blocked && s < least ? s : least),
    Infinity,
  );
  return { tpr: rateAbove(positive, threshold), threshold };
}

/** The highest of the scores that must stay below a threshold which at most `rate` of all reach. */
function firstBlocked(scores: readonly number[], rate: number): number {
  const sorted = Float64Array.from(scores).sort();
  return sorted[sorted.length - 1 - countWithin(rate, sorted.length)] ?? -Infinity;
}

/** A baseline's threshold: the lowest that no more than 1 % of the benign conversations of its training reach. */
export function ownThreshold(benign: readonly number[]): number {
  return nextUp(firstBlocked(benign, 0.01));
}

/** The share of values at or above a threshold. */
export function rateAbove(values: readonly number[], threshold: number): number {
  return values.filter((value) => value >= threshold).length / values.length;
}

/** The arithmetic mean. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The value below which a share of all lies, on a straight line between its neighbours (Hyndman and Fan's 7). */
export function quantile(sorted: ArrayLike<number>, share: number): number {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const [low = Number.NaN, high = low] = [sorted[below], sorted[below + 1]];
  return low + (place - below) * (high - low);
}
