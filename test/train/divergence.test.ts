import { describe, expect, it } from "vitest";
import { Random } from "../../src/random.js";
import { LossWatch } from "../../src/train/divergence.js";

/** The step, counted from 1, at which a watch finds the losses diverged, and what it says; null for never. */
function found(losses: readonly number[], factor = 3): { step: number; problem: string } | null {
  const watch = new LossWatch(factor);
  for (const [i, loss] of losses.entries()) {
    const problem = watch.see({ loss, terms: { ce: loss / 4, post: loss / 2, benign: loss / 4 }, tokens: 1 });
    if (problem !== null) return { step: i + 1, problem };
  }
  return null;
}

const constant = (value: number, count: number) => new Array<number>(count).fill(value);

describe("a loss has diverged", () => {
  it("where it has stayed above the multiple of its best level for 20 steps, and not before", () => {
    const losses = [...constant(10, 5), ...constant(2, 20), ...constant(6.1, 40)];
    expect(found(losses)).toEqual({
      step: 45,
      problem:
        "the loss has stayed above 6 for 20 steps, its best level was 2; most of all 'post', from 1 to 3.05",
    });
    expect(found([...constant(10, 5), ...constant(2, 20), ...constant(5.9, 40)])).toBeNull();
    expect(found(losses, 2)?.step).toBe(45);
    expect(found(losses, 4)).toBeNull();
    expect(found(losses, 0)).toBeNull();
  });

  it("where it has never been good, and rises", () => {
    expect(found([...constant(5, 5), ...Array.from({ length: 60 }, (_, i) => 5 * 1.3 ** i)])).not.toBeNull();
  });

  it("but not where one step of twenty is good", () => {
    const losses = [...constant(10, 25), ...Array.from({ length: 200 }, (_, i) => (i % 20 === 0 ? 9 : 90))];
    expect(found(losses)).toBeNull();
  });

  it("but not where it has almost vanished and multiplies below half of where it began", () => {
    expect(found([...constant(10, 5), ...constant(0.001, 30), ...constant(4.9, 60)])).toBeNull();
    expect(found([...constant(10, 5), ...constant(0.001, 30), ...constant(5.1, 60)])).not.toBeNull();
  });

  it("but not where it is nothing at all", () => {
    expect(found(constant(0, 100))).toBeNull();
  });

  it("but not by the noise of independent batches, however heavy its tails", () => {
    const random = new Random(1);
    const laws: Record<string, () => number> = {
      exponential: () => -Math.log(1 - random.uniform()),
      // Infinite variance.
      pareto: () => (1 - random.uniform()) ** (-1 / 1.5),
      "one in ten": () => (random.below(10) === 0 ? 10 : 0.01),
      uniform: () => random.uniform(),
    };
    for (const [name, law] of Object.entries(laws)) {
      for (let run = 0; run < 20; run++) {
        expect(found(Array.from({ length: 1000 }, law)), name).toBeNull();
      }
    }
  });
});

it.each([1, 0.5, -1, Number.NaN])("a multiple of %d is refused", (factor) => {
  expect(() => new LossWatch(factor)).toThrow(/^divergence must be 0 or a number above 1, got/);
});
