import { countWithin } from "../flag/conformal.js";

/** Scores of the two classes that a detector is to tell apart; higher means harmful. */
export interface Scores {
  readonly positive: readonly number[];
  readonly negative: readonly number[];
}

/** How often each score counts, in the order of its class. */
export interface ScoreCounts {
  readonly positive: ArrayLike<number>;
  readonly negative: ArrayLike<number>;
}

/** What an order of scores is worth. NaN where a class that the figure needs has no score. */
export interface RankMetrics {
  /**
   * Area under the receiver operating characteristic: the chance that a positive scores above a negative, ties
   * counting half (Mann and Whitney 1947).
   */
  readonly auroc: number;
  /** Σ (R_i - R_(i-1)) · P_i over the distinct scores from the highest: precision by the recall that it gains. */
  readonly averagePrecision: number;
  /** For each false-positive rate asked for: the share of positives that the best threshold within it finds. */
  readonly tpr: readonly number[];
}

/** A point of the receiver operating characteristic: false-positive rate, true-positive rate. */
export type RocPoint = readonly [number, number];

/**
 * Scores of both classes, sorted once, so that a bootstrap measures each resample in one pass: what it draws is how
 * often each score counts.
 */
export class Ranking {
  /** From the highest score: the indices of positives, and those of negatives counted on behind them. */
  readonly #order: Uint32Array;
  /** 1 where the next in the order has another score. */
  readonly #endsTie: Uint8Array;
  readonly #once: ScoreCounts;

  /** @throws RangeError for a score that is NaN: it has no rank */
  constructor({ positive, negative }: Scores) {
    const scores = new Float64Array(positive.length + negative.length);
    scores.set(positive);
    scores.set(negative, positive.length);
    if (scores.includes(Number.NaN)) throw new RangeError("ranking: a score is NaN");
    const at = (i: number) => scores[i] as number;
    // No difference: that of two infinities is NaN.
    this.#order = Uint32Array.from(scores, (_, i) => i).sort((i, j) =>
      at(i) === at(j) ? 0 : at(i) > at(j) ? -1 : 1,
    );
    this.#endsTie = new Uint8Array(scores.length).fill(1);
    for (let i = 1; i < scores.length; i++) {
      if (at(this.#order[i] as number) === at(this.#order[i - 1] as number)) this.#endsTie[i - 1] = 0;
    }
    this.#once = {
      positive: new Uint8Array(positive.length).fill(1),
      negative: new Uint8Array(negative.length).fill(1),
    };
  }

  /**
   * @param rates false-positive rates at which the true-positive rate is wanted
   * @param counts how often each score counts; once by default
   */
  measure(rates: readonly number[], counts: ScoreCounts = this.#once): RankMetrics {
    const positives = sum(counts.positive);
    const negatives = sum(counts.negative);
    const allowed = rates.map((rate) => countWithin(rate, negatives));
    const found = rates.map(() => 0);
    let area = 0;
    let precision = 0;
    this.#sweep(counts, (truePositives, falsePositives, positive, negative) => {
      area += negative * (truePositives - positive / 2);
      if (positive > 0) precision += (positive * truePositives) / (truePositives + falsePositives);
      allowed.forEach((most, i) => {
        if (falsePositives <= most) found[i] = truePositives;
      });
    });
    return {
      auroc: area / (positives * negatives),
      averagePrecision: precision / positives,
      tpr: found.map((count) => count / positives),
    };
  }

  /** The corners of the curve from (0, 0) to (1, 1); ties of both classes make a slope. */
  curve(): RocPoint[] {
    const positives = this.#once.positive.length;
    const negatives = this.#once.negative.length;
    const points: RocPoint[] = [[0, 0]];
    let before: readonly [number, number] | undefined;
    this.#sweep(this.#once, (truePositives, falsePositives, positive, negative) => {
      // A point in the middle of a straight line is no corner.
      if (before && before[0] * negative === before[1] * positive) points.pop();
      points.push([falsePositives / negatives, truePositives / positives]);
      before = [positive, negative];
    });
    return points;
  }

  /** Goes through the distinct scores from the highest: what is at or above each, and what is at it. */
  #sweep(
    { positive, negative }: ScoreCounts,
    visit: (truePositives: number, falsePositives: number, positive: number, negative: number) => void,
  ): void {
    const order = this.#order;
    let [truePositives, falsePositives, positiveHere, negativeHere] = [0, 0, 0, 0];
    for (let i = 0; i < order.length; i++) {
      const item = order[i] as number;
      if (item < positive.length) positiveHere += positive[item] as number;
      else negativeHere += negative[item - positive.length] as number;
      if (this.#endsTie[i] === 0) continue;
      truePositives += positiveHere;
      falsePositives += negativeHere;
      visit(truePositives, falsePositives, positiveHere, negativeHere);
      positiveHere = negativeHere = 0;
    }
  }
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i] as number;
  return total;
}
