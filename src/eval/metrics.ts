/** Scores of the two classes that a detector is to tell apart; higher means harmful. */
export interface Scores {
  readonly positive: readonly number[];
  readonly negative: readonly number[];
}

/**
 * Area under the receiver operating characteristic: the chance that a positive scores above a negative, ties
 * counting half (Mann and Whitney 1947). NaN where there is no positive, or no negative.
 * @throws RangeError for a score that is NaN: it has no rank
 */
export function auroc({ positive, negative }: Scores): number {
  const all = [...positive.map((s) => ({ s, p: true })), ...negative.map((s) => ({ s, p: false }))];
  if (all.some(({ s }) => Number.isNaN(s))) throw new RangeError("auroc: a score is NaN");
  all.sort((a, b) => a.s - b.s);
  let rankSum = 0;
  for (let i = 0; i < all.length; ) {
    let j = i;
    while (j < all.length && all[j]?.s === all[i]?.s) j++;
    const rank = (i + j + 1) / 2;
    for (let k = i; k < j; k++) if (all[k]?.p) rankSum += rank;
    i = j;
  }
  const n = positive.length;
  return (rankSum - (n * (n + 1)) / 2) / (n * negative.length);
}

/**
 * The share of positives at or above the lowest threshold that lets at most `rate` of the negatives through.
 */
export function tprAtFpr({ positive, negative }: Scores, rate: number): { tpr: number; threshold: number } {
  const sorted = [...negative].sort((a, b) => b - a);
  // 0.29 · 100 is a little below 29.
  const allowed = Math.floor(rate * negative.length * (1 + Number.EPSILON));
  // The first negative that must stay below the threshold.
  const blocked = sorted[allowed] ?? -Infinity;
  const threshold = [...positive, ...negative].reduce(
    (least, s) => (s > blocked && s < least ? s : least),
    Infinity,
  );
  return { tpr: rateAbove(positive, threshold), threshold };
}

/** The share of values at or above a threshold. */
export function rateAbove(values: readonly number[], threshold: number): number {
  return values.filter((value) => value >= threshold).length / values.length;
}

/** The arithmetic mean. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
