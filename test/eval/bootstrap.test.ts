import { describe, expect, it } from "vitest";
import { bootstrap } from "../../src/eval/bootstrap.js";
import { detectorResult, type Reading } from "../../src/eval/detector.js";
import { Random } from "../../src/random.js";

const draws = (count: number, draw: () => number) => Array.from({ length: count }, draw);
const weighted = (values: readonly number[], counts: Uint32Array | undefined) =>
  values.reduce((sum, value, i) => sum + value * (counts?.[i] ?? 0), 0) / values.length;

describe("the bootstrap", () => {
  it("gives the value of the data itself, and the mean's interval as theory has it", () => {
    const random = new Random(3);
    const values = draws(200, () => random.normal());
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
    const { estimate } = bootstrap([values.length], ([counts]) => ({ estimate: weighted(values, counts) }), {
      resamples: 20000,
      seed: 1,
    });
    expect(estimate.value).toBeCloseTo(mean, 12);
    // The quantile at 0.975 of 20000 normal draws has a standard deviation of 0.019; four of them.
    const error = deviation / Math.sqrt(values.length);
    expect(Math.abs((estimate.low - mean) / error + 1.96)).toBeLessThan(0.08);
    expect(Math.abs((estimate.high - mean) / error - 1.96)).toBeLessThan(0.08);
  });

  it("draws every population anew, as many as it has", () => {
    const seen: number[][] = [];
    bootstrap(
      [2, 5],
      (counts) => {
        seen.push(counts.flatMap((each) => [...each]));
        for (const each of counts) expect(each.reduce((sum, count) => sum + count, 0)).toBe(each.length);
        return {};
      },
      { resamples: 50, seed: 2 },
    );
    expect(seen).toHaveLength(51);
    expect(new Set(seen.map((each) => each.join())).size).toBeGreaterThan(40);
  });

  it("is the same for the same seed, another for another", () => {
    const run = (seed: number) =>
      bootstrap([9], ([counts]) => ({ x: weighted([1, 2, 3, 4, 5, 6, 7, 8, 9], counts) }), {
        resamples: 100,
        seed,
      });
    expect(run(1)).toEqual(run(1));
    expect(run(2)).not.toEqual(run(1));
  });
});

describe("a detector's interval", () => {
  const reading = (score: number): Reading => ({ score, flagged: score >= 1, first: null });
  const detector = (seeds: readonly { harmful: number[]; benign: number[] }[]) => ({
    ...{ name: "synthetic", rule: "score >= 1", harmful: [] },
    seeds: seeds.map(({ harmful, benign }) => ({
      harmful: harmful.map(reading),
      benign: benign.map(reading),
    })),
  });
  /** P(N(1, 1) > N(0, 1)) = Φ(1 / √2), and the rates at 1: Φ(0), Φ(-1). */
  const TRUE = { auroc: 0.76025, flag_rate: 0.5, false_positive_rate: 0.158655 };

  it("covers the truth 95 times of 100", () => {
    const random = new Random(11);
    const trials = 200;
    const covered = { auroc: 0, flag_rate: 0, false_positive_rate: 0 };
    for (let trial = 0; trial < trials; trial++) {
      const harmful = draws(80, () => 1 + random.normal());
      const benign = draws(80, () => random.normal());
      const result = detectorResult(detector([{ harmful, benign }]), { resamples: 300, seed: trial });
      for (const name of ["auroc", "flag_rate", "false_positive_rate"] as const) {
        const { low = 1, high = 0 } = result[name] ?? {};
        if (low <= TRUE[name] && TRUE[name] <= high) covered[name]++;
      }
    }
    // Three standard deviations of 200 trials at 0.95 are 0.046; percentiles fall a little short at 80 examples.
    for (const [name, count] of Object.entries(covered)) {
      expect(count / trials, name).toBeGreaterThan(0.89);
      expect(count / trials, name).toBeLessThan(0.99);
    }
  });

  it("is wider where seeds differ, and as wide as one seed's where they agree", () => {
    const random = new Random(12);
    const data = (shift: number) => ({
      harmful: draws(60, () => 1 + shift + random.normal()),
      benign: draws(60, () => random.normal()),
    });
    const width = (seeds: readonly { harmful: number[]; benign: number[] }[]) => {
      const { auroc } = detectorResult(detector(seeds), { resamples: 4000, seed: 1 });
      return (auroc?.high ?? 0) - (auroc?.low ?? 0);
    };
    const one = data(0);
    const alone = width([one]);
    // Every adapter has read the same examples, so three that agree tell no more than one. The widths of two
    // bootstraps of 4000 differ by 0.02 by chance.
    expect(Math.abs(width([one, one, one]) / alone - 1)).toBeLessThan(0.1);
    expect(width([data(-1), one, data(1)])).toBeGreaterThan(1.5 * alone);
  });

  it("has the mean of the seeds, each seed's AUROC, and the mean curve's area", () => {
    const result = detectorResult(
      detector([
        { harmful: [3, 4, 0], benign: [0, 1, 2, 3] },
        { harmful: [1, 1, 5], benign: [1, 1, 2, 0] },
      ]),
      { resamples: 10, seed: 0 },
    );
    const [a = 0, b = 0] = result.auroc_by_seed;
    expect(a).toBeCloseTo((3.5 + 4 + 0.5) / 12, 12);
    expect(b).toBeCloseTo((2 * 2 + 4) / 12, 12);
    expect(result.auroc?.value).toBeCloseTo((a + b) / 2, 12);
    const area = result.roc.reduce((sum, [x, y], i) => {
      const [x0, y0] = result.roc[i - 1] ?? [0, 0];
      return sum + ((x - x0) * (y + y0)) / 2;
    }, 0);
    expect(area).toBeCloseTo((a + b) / 2, 12);
    expect(result.flag_rate?.value).toBeCloseTo((2 / 3 + 1) / 2, 12);
    expect(result.false_positive_rate?.value).toBeCloseTo((3 / 4 + 3 / 4) / 2, 12);
  });
});
