import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Ranking, type Scores } from "../../src/eval/ranking.js";

const RATES = [0, 0.01, 0.1, 0.29, 0.5, 1];

/** Few distinct values, so that ties are common. */
const score = fc.oneof(
  fc.integer({ min: 0, max: 4 }),
  fc.double({ min: -1, max: 1, noNaN: true }),
  fc.constantFrom(-Infinity, Infinity, -0, 0),
);
const list = fc.array(score, { minLength: 1, maxLength: 20 });
const scores = fc.record({ positive: list, negative: list });

const share = (values: readonly number[], threshold: number) =>
  values.filter((value) => value >= threshold).length / values.length;

/** Every figure by its definition: every pair, every threshold. */
function plain({ positive, negative }: Scores) {
  let pairs = 0;
  for (const p of positive) for (const n of negative) pairs += p > n ? 1 : p === n ? 0.5 : 0;
  const thresholds = [...new Set([...positive, ...negative].map((value) => value + 0))].sort((a, b) => b - a);
  let averagePrecision = 0;
  let recall = 0;
  for (const threshold of thresholds) {
    const [found, false_] = [share(positive, threshold), share(negative, threshold)];
    const precision = (found * positive.length) / (found * positive.length + false_ * negative.length);
    if (found > recall) averagePrecision += (found - recall) * precision;
    recall = found;
  }
  const tpr = RATES.map((rate) =>
    Math.max(0, ...thresholds.filter((t) => share(negative, t) <= rate).map((t) => share(positive, t))),
  );
  return { auroc: pairs / (positive.length * negative.length), averagePrecision, tpr };
}

/** Scores, each as often as it counts. */
const repeated = (values: readonly number[], counts: readonly number[]) =>
  values.flatMap((value, i) => Array.from({ length: counts[i] ?? 0 }, () => value));

describe("a ranking", () => {
  it("measures what every pair and every threshold say", () => {
    fc.assert(
      fc.property(scores, (both) => {
        const [found, expected] = [new Ranking(both).measure(RATES), plain(both)];
        expect(found.auroc).toBeCloseTo(expected.auroc, 12);
        expect(found.averagePrecision).toBeCloseTo(expected.averagePrecision, 12);
        found.tpr.forEach((tpr, i) => {
          expect(tpr, `at ${RATES[i]}`).toBeCloseTo(expected.tpr[i] ?? Number.NaN, 12);
        });
      }),
    );
  });

  it("measures a resample as if its scores stood there that often", () => {
    const counts = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 20, maxLength: 20 });
    fc.assert(
      fc.property(scores, counts, counts, (both, p, n) => {
        const resample = { positive: repeated(both.positive, p), negative: repeated(both.negative, n) };
        fc.pre(resample.positive.length > 0 && resample.negative.length > 0);
        const found = new Ranking(both).measure(RATES, {
          positive: p.slice(0, both.positive.length),
          negative: n.slice(0, both.negative.length),
        });
        const expected = new Ranking(resample).measure(RATES);
        expect(found.tpr).toEqual(expected.tpr);
        expect(found.auroc).toBeCloseTo(expected.auroc, 12);
        expect(found.averagePrecision).toBeCloseTo(expected.averagePrecision, 12);
      }),
    );
  });

  it("refuses NaN", () => {
    expect(() => new Ranking({ positive: [0], negative: [1, Number.NaN] })).toThrow(RangeError);
  });
});

describe("its curve", () => {
  it("rises from (0, 0) to (1, 1) around the AUROC, through the rates of every threshold", () => {
    fc.assert(
      fc.property(scores, (both) => {
        const ranking = new Ranking(both);
        const curve = ranking.curve();
        expect(curve[0]).toEqual([0, 0]);
        expect(curve.at(-1)).toEqual([1, 1]);
        let area = 0;
        for (let i = 1; i < curve.length; i++) {
          const [[x0, y0], [x1, y1]] = [curve[i - 1] ?? [0, 0], curve[i] ?? [0, 0]];
          expect(x1 > x0 || y1 > y0).toBe(true);
          expect(x1 >= x0 && y1 >= y0).toBe(true);
          area += ((x1 - x0) * (y0 + y1)) / 2;
        }
        expect(area).toBeCloseTo(ranking.measure([]).auroc, 12);
        for (const threshold of [...both.positive, ...both.negative]) {
          expect(
            distance(curve, share(both.negative, threshold), share(both.positive, threshold)),
          ).toBeLessThan(1e-12);
        }
      }),
    );
  });

  it("has corners only", () => {
    expect(new Ranking({ positive: [2, 3, 4], negative: [0, 1] }).curve()).toEqual([
      [0, 0],
      [0, 1],
      [1, 1],
    ]);
    const ties = { positive: [1, 1, 2, 2], negative: [1, 2] };
    expect(new Ranking(ties).curve()).toEqual([
      [0, 0],
      [1, 1],
    ]);
  });
});

/** From a point to the nearest segment of a curve, along the axes. */
function distance(curve: readonly (readonly [number, number])[], x: number, y: number): number {
  let least = Infinity;
  for (let i = 1; i < curve.length; i++) {
    const [[x0, y0], [x1, y1]] = [curve[i - 1] ?? [0, 0], curve[i] ?? [0, 0]];
    if (x < x0 - 1e-12 || x > x1 + 1e-12 || y < y0 - 1e-12 || y > y1 + 1e-12) continue;
    // Twice the area of the triangle, 0 where the point is on the line.
    least = Math.min(least, Math.abs((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)));
  }
  return least;
}
