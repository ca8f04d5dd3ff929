import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HELD_OUT_SHARE, holdOut } from "../../src/eval/hold-out.js";
import { Random } from "../../src/random.js";

describe("held-out data", () => {
  it("and the data to train on are the whole, each in its order", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 200 }), fc.nat(), (count, seed) => {
        const items = Array.from({ length: count }, (_, i) => i);
        const { training, heldOut } = holdOut(items, "data", new Random(seed));
        expect([...training, ...heldOut].sort((a, b) => a - b)).toEqual(items);
        for (const part of [training, heldOut]) expect([...part].sort((a, b) => a - b)).toEqual(part);
        expect(training.length).toBeGreaterThan(0);
        expect(heldOut.length).toBeGreaterThan(0);
        expect(Math.abs(heldOut.length - HELD_OUT_SHARE * count)).toBeLessThanOrEqual(count < 3 ? 1 : 0.5);
      }),
    );
  });

  it("are the same for the same seed, and any item's turn comes", () => {
    const items = Array.from({ length: 10 }, (_, i) => i);
    const split = (seed: number) => holdOut(items, "data", new Random(seed)).heldOut;
    expect(split(3)).toEqual(split(3));
    const seen = new Set(Array.from({ length: 100 }, (_, seed) => split(seed)).flat());
    expect(seen.size).toBe(10);
  });

  it("need two examples at least", () => {
    expect(() => holdOut([1], "--benign", new Random(0))).toThrow(/^--benign: one example cannot be split/);
  });
});
