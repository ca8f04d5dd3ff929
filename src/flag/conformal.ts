/** How many of `count` are within a rate: 0.29 · 100 is a little below 29, and means 29. */
export function countWithin(rate: number, count: number): number {
  return Math.floor(rate * count * (1 + Number.EPSILON));
}

/**
 * The lowest level that, of conversations exchangeable with those of `scores`, at most the share `rate` reaches:
 * split conformal prediction (Vovk et al. 2005). Of n scores and a new one, each place in the order is as likely for
 * the new one; it exceeds the ⌈(n + 1)(1 - rate)⌉-th smallest score in no more than ⌊(n + 1) · rate⌋ of n + 1
 * places, and in fewer where there are ties. A level is met by reaching it, so it is the next number above that
 * score.
 * @throws RangeError for a rate that is not between 0 and 1, or fewer scores than it needs
 */
export function conformalLevel(scores: readonly number[], rate: number): number {
  if (!(rate > 0 && rate < 1)) throw new RangeError(`fpr must be a number between 0 and 1, got ${rate}`);
  const allowed = countWithin(rate, scores.length + 1);
  if (allowed === 0) {
    throw new RangeError(
      `fpr: a rate of ${rate} needs at least ${scoresNeeded(rate)} benign conversations, there are ${scores.length}`,
    );
  }
  const sorted = Float64Array.from(scores).sort();
  return nextUp(sorted[Math.max(0, scores.length - allowed)] as number);
}

/** The fewest scores of which a rate allows the new one a place: ⌈1 / rate⌉ - 1. */
function scoresNeeded(rate: number): number {
  let needed = Math.max(0, Math.ceil(1 / rate) - 2);
  while (countWithin(rate, needed + 1) === 0) needed++;
  return needed;
}

/** The least number above x, which must be finite. */
export function nextUp(x: number): number {
  if (x === 0) return Number.MIN_VALUE;
  const value = new Float64Array([x]);
  // Neighbours of one sign are neighbours as integers, away from 0.
  const bits = new BigInt64Array(value.buffer);
  bits[0] = (bits[0] as bigint) + (x > 0 ? 1n : -1n);
  return value[0] as number;
}
