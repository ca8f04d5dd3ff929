import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FeatureRows, fitLogistic } from "../../src/eval/logistic.js";
import { Random } from "../../src/random.js";

function rowsOf(values: readonly (readonly number[])[]): FeatureRows {
  const width = values[0]?.length ?? 0;
  return {
    count: values.length,
    width,
    dot: (row, weights) => (values[row] ?? []).reduce((sum, x, j) => sum + x * (weights[j] ?? 0), 0),
    addTo(target, row, factor) {
      (values[row] ?? []).forEach((x, j) => {
        target[j] = (target[j] ?? 0) + factor * x;
      });
    },
  };
}

/** The loss as its docstring has it: the classes' mean cross-entropies, halved, and the penalty. */
function lossAt(
  values: readonly (readonly number[])[],
  labels: readonly number[],
  l2: number,
  weights: readonly number[],
  bias: number,
): number {
  const of = (label: number) => {
    const losses = values.flatMap((row, i) => {
      if (labels[i] !== label) return [];
      const z = row.reduce((sum, x, j) => sum + x * (weights[j] ?? 0), bias);
      return [Math.log1p(Math.exp(label === 1 ? -z : z))];
    });
    return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  };
  return (of(0) + of(1)) / 2 + (l2 / 2) * weights.reduce((sum, w) => sum + w * w, 0);
}

describe("logistic regression", () => {
  const problems = fc
    .record({ count: fc.integer({ min: 4, max: 40 }), width: fc.integer({ min: 1, max: 6 }), seed: fc.nat() })
    .map(({ count, width, seed }) => {
      const random = new Random(seed);
      const labels = Array.from({ length: count }, (_, i) => (i < 2 ? i : random.below(2)));
      const scale = 10 ** (2 * random.uniform() - 1);
      const values = labels.map((label) =>
        Array.from({ length: width }, (_, j) => scale * (random.normal() + (j === 0 ? label : 0))),
      );
      return { labels, values };
    });

  it("ends where every slope of the loss is 0, by central differences", () => {
    fc.assert(
      fc.property(problems, fc.constantFrom(1, 0.1, 0.01), ({ labels, values }, l2) => {
        const { weights, bias } = fitLogistic(rowsOf(values), Uint8Array.from(labels), { l2 });
        const point = [...weights, bias];
        const at = (shifted: readonly number[]) =>
          lossAt(values, labels, l2, shifted.slice(0, -1), shifted.at(-1) ?? 0);
        point.forEach((x, j) => {
          const h = 1e-4 * Math.max(1, Math.abs(x));
          const slope = (at(point.with(j, x + h)) - at(point.with(j, x - h))) / (2 * h);
          // The fit ends at slopes of 1e-6; the difference itself is off by h², times the third derivative.
          expect(Math.abs(slope), `parameter ${j}`).toBeLessThan(2e-5);
        });
      }),
      { numRuns: 60 },
    );
  });

  it("gives the log-odds of one feature of two values", () => {
    // Of the first class 1 of 4 has the feature, of the second 3 of 4: with both classes equally heavy the odds are
    // 3 and 1/3.
    const values = [[1], [0], [0], [0], [1], [1], [1], [0]];
    const labels = Uint8Array.of(0, 0, 0, 0, 1, 1, 1, 1);
    const { weights, bias } = fitLogistic(rowsOf(values), labels, { l2: 0, tolerance: 1e-10 });
    expect(bias).toBeCloseTo(-Math.log(3), 6);
    expect((weights[0] ?? 0) + bias).toBeCloseTo(Math.log(3), 6);
  });

  it("does not see how often a class occurs", () => {
    const random = new Random(4);
    const positive = Array.from({ length: 10 }, () => [random.normal() + 1, random.normal()]);
    const negative = Array.from({ length: 10 }, () => [random.normal(), random.normal()]);
    const fitted = (times: number) => {
      const values = [...positive, ...Array.from({ length: times }, () => negative).flat()];
      const labels = Uint8Array.from(values, (_, i) => (i < 10 ? 1 : 0));
      return fitLogistic(rowsOf(values), labels, { l2: 0.1, tolerance: 1e-9 });
    };
    const [once, often] = [fitted(1), fitted(7)];
    expect(often.bias).toBeCloseTo(once.bias, 6);
    once.weights.forEach((weight, j) => {
      expect(often.weights[j]).toBeCloseTo(weight, 6);
    });
  });

  it("survives a separable problem of huge features, and refuses a single class", () => {
    const { weights } = fitLogistic(rowsOf([[-1e6], [1e6]]), Uint8Array.of(0, 1), { l2: 1e-6 });
    expect(weights[0]).toBeGreaterThan(0);
    expect(Number.isFinite(weights[0])).toBe(true);
    expect(() => fitLogistic(rowsOf([[1], [2]]), Uint8Array.of(1, 1), { l2: 1 })).toThrow(/both classes/);
  });
});
