import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { auroc, mean, rateAbove, tprAtFpr } from "../../src/eval/metrics.js";
import type { Scores } from "../../src/eval/ranking.js";

/** Few distinct values, so that ties are common; and any. */
const score = fc.oneof(
  fc.integer({ min: 0, max: 4 }),
  fc.double({ min: 0, max: 1, noNaN: true }),
  fc.constantFrom(-1e300, 1e300, -0, 0),
);
const list = fc.array(score, { minLength: 1, maxLength: 25 });
const scores = fc.record({ positive: list, negative: list });
const rates = fc.oneof(
  fc.constantFrom(0, 0.01, 0.05, 0.29, 0.5, 1),
  fc.integer({ min: 0, max: 1000 }).map((n) => n / 1000),
);

function everyPair({ positive, negative }: Scores): number {
  let sum = 0;
  for (const p of positive) for (const n of negative) sum += p > n ? 1 : p === n ? 0.5 : 0;
  return sum / (positive.length * negative.length);
}

/** The most true positives of any threshold whose false positives are few enough. */
function everyThreshold({ positive, negative }: Scores, rate: number): number {
  const share = (values: readonly number[], t: number) =>
    values.filter((value) => value >= t).length / values.length;
  const fit = [...positive, ...negative].filter((t) => share(negative, t) <= rate);
  return Math.max(0, ...fit.map((t) => share(positive, t)));
}

describe("AUROC", () => {
  it("is the share of pairs in the right order, ties counting half", () => {
    fc.assert(
      fc.property(scores, (both) => {
        expect(auroc(both)).toBeCloseTo(everyPair(both), 10);
      }),
    );
  });

  it("turns around with the classes, and does not see a monotone change", () => {
    fc.assert(
      fc.property(scores, ({ positive, negative }) => {
        const found = auroc({ positive, negative });
        expect(auroc({ positive: negative, negative: positive })).toBeCloseTo(1 - found, 10);
        const bent = (values: readonly number[]) => values.map((value) => Math.atan(value));
        const distinct = new Set([...positive, ...negative]).size;
        fc.pre(new Set(bent([...positive, ...negative])).size === distinct);
        expect(auroc({ positive: bent(positive), negative: bent(negative) })).toBeCloseTo(found, 10);
      }),
    );
  });

  it("knows the extremes", () => {
    expect(auroc({ positive: [2, 3], negative: [0, 1] })).toBe(1);
    expect(auroc({ positive: [0, 1], negative: [2, 3] })).toBe(0);
    expect(auroc({ positive: [1, 1], negative: [1, 1, 1] })).toBe(0.5);
    expect(auroc({ positive: [], negative: [1] })).toBeNaN();
  });

  it("refuses a score that is no number instead of ranking it", () => {
    expect(() => auroc({ positive: [Number.NaN], negative: [1] })).toThrow(RangeError);
  });
});

describe("TPR at a FPR", () => {
  it("is the best of all thresholds", () => {
    fc.assert(
      fc.property(scores, rates, (both, rate) => {
        const { tpr, threshold } = tprAtFpr(both, rate);
        expect(tpr).toBe(everyThreshold(both, rate));
        expect(rateAbove(both.positive, threshold)).toBe(tpr);
        fc.pre(threshold < Infinity);
        expect(rateAbove(both.negative, threshold)).toBeLessThanOrEqual(rate);
      }),
    );
  });

  it("lets exactly as many negatives through as the rate allows", () => {
    const negative = Array.from({ length: 100 }, (_, i) => i);
    for (let count = 0; count <= 100; count++) {
      const { threshold } = tprAtFpr({ positive: [1000], negative }, count / 100);
      expect(
        negative.filter((value) => value >= threshold),
        `${count}`,
      ).toHaveLength(count);
    }
  });

  it("takes many scores", () => {
    const many = Array.from({ length: 300_000 }, (_, i) => i);
    expect(tprAtFpr({ positive: many, negative: many }, 0.5).tpr).toBe(0.5);
    expect(auroc({ positive: many, negative: many })).toBe(0.5);
  });
});

it("the mean and the share above a level", () => {
  expect(mean([1, 2, 6])).toBe(3);
  expect(rateAbove([0.2, 0.5, 0.9], 0.5)).toBeCloseTo(2 / 3);
});
