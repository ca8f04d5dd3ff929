import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { argmaxOf, checkSampling, GREEDY, sample } from "../../src/generate/sample.js";
import { Random } from "../../src/random.js";

/** Few distinct values, so that ties are common; and any. */
const logit = fc.oneof(fc.integer({ min: -2, max: 2 }), fc.double({ min: -30, max: 30, noNaN: true }));
const logitsOfAnySize = fc.array(logit, { minLength: 2, maxLength: 40 });
const seeds = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const temperatures = fc.double({ min: 0.05, max: 8, noNaN: true });
const all = { temperature: 1, topK: 0, topP: 1 };

/** Ids from the likeliest on, equals by id. */
function ranking(logits: readonly number[]): number[] {
  return logits.map((_, id) => id).sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);
}

function probabilities(logits: readonly number[], temperature: number): number[] {
  const most = Math.max(...logits);
  const exp = logits.map((value) => Math.exp((value - most) / temperature));
  const sum = exp.reduce((a, b) => a + b, 0);
  return exp.map((value) => value / sum);
}

describe("the options", () => {
  it.each([
    [{ temperature: -1 }, "temperature"],
    [{ temperature: Number.NaN }, "temperature"],
    [{ temperature: Infinity }, "temperature"],
    [{ topK: -1 }, "topK"],
    [{ topK: 1.5 }, "topK"],
    [{ topP: 0 }, "topP"],
    [{ topP: 1.01 }, "topP"],
    [{ topP: Number.NaN }, "topP"],
  ])("%j is refused by name", (wrong, name) => {
    expect(() => checkSampling({ ...GREEDY, ...wrong })).toThrow(RangeError);
    expect(() => checkSampling({ ...GREEDY, ...wrong })).toThrow(new RegExp(`^${name} must`));
  });
});

describe("sampling", () => {
  it("at temperature 0 takes the likeliest, the first of equals", () => {
    fc.assert(
      fc.property(logitsOfAnySize, seeds, (logits, seed) => {
        const found = sample(logits, GREEDY, new Random(seed));
        expect(found).toBe(logits.indexOf(Math.max(...logits)));
        expect(argmaxOf(logits)).toBe(found);
      }),
    );
  });

  it("nears it as the temperature falls, without overflow", () => {
    fc.assert(
      fc.property(
        logitsOfAnySize,
        seeds,
        fc.constantFrom(1e-3, 1e-30, 1e-300, 5e-324),
        (logits, seed, temperature) => {
          const [first = 0, second = 0] = ranking(logits);
          fc.pre((logits[first] ?? 0) - (logits[second] ?? 0) > 0.1);
          expect(sample(logits, { ...all, temperature }, new Random(seed))).toBe(first);
        },
      ),
    );
  });

  it("with top-k draws only the k likeliest", () => {
    fc.assert(
      fc.property(
        logitsOfAnySize,
        seeds,
        temperatures,
        fc.integer({ min: 1, max: 50 }),
        (logits, seed, temperature, topK) => {
          const random = new Random(seed);
          const kept = new Set(ranking(logits).slice(0, topK));
          for (let i = 0; i < 20; i++) {
            expect(kept.has(sample(logits, { ...all, temperature, topK }, random))).toBe(true);
          }
        },
      ),
    );
  });

  it("with top-p draws only the fewest that reach p, after temperature and top-k", () => {
    const ps = fc.double({ min: 0.01, max: 0.99, noNaN: true });
    const ks = fc.constantFrom(0, 3, 7);
    fc.assert(
      fc.property(logitsOfAnySize, seeds, temperatures, ps, ks, (logits, seed, temperature, topP, topK) => {
        const ranked = ranking(logits).slice(0, topK || logits.length);
        const p = probabilities(
          ranked.map((id) => logits[id] ?? 0),
          temperature,
        );
        let mass = 0;
        const kept = ranked.filter((_, i) => {
          const isKept = mass < topP - 1e-9;
          mass += p[i] ?? 0;
          return isKept;
        });
        const random = new Random(seed);
        for (let i = 0; i < 20; i++) {
          expect(kept).toContain(sample(logits, { temperature, topK, topP }, random));
        }
      }),
    );
  });

  it("never draws what is banned, and draws from the rest as if it were not there", () => {
    fc.assert(
      fc.property(
        logitsOfAnySize,
        seeds,
        fc.nat(),
        fc.constantFrom(0, 0.7),
        (logits, seed, which, temperature) => {
          const id = which % logits.length;
          const loud = logits.map((value, i) => (i === id ? 1000 : value));
          const without = logits.filter((_, i) => i !== id);
          const options = { temperature, topK: 4, topP: 0.9 };
          const [a, b] = [new Random(seed), new Random(seed)];
          for (let i = 0; i < 10; i++) {
            const found = sample(loud, options, a, new Set([id]));
            expect(found).not.toBe(id);
            const other = sample(without, options, b);
            expect(found).toBe(other < id ? other : other + 1);
          }
        },
      ),
    );
  });

  it("draws as often as the probabilities say", () => {
    const logits = [0.3, -1.2, 1.9, 0, 0.7, -3];
    const draws = 40_000;
    const cases = [
      { temperature: 1, topK: 0, topP: 1 },
      { temperature: 0.6, topK: 0, topP: 1 },
      { temperature: 2.5, topK: 4, topP: 1 },
      { temperature: 1, topK: 0, topP: 0.8 },
    ];
    for (const options of cases) {
      const random = new Random(12);
      const counts = new Array<number>(logits.length).fill(0);
      for (let i = 0; i < draws; i++) {
        const id = sample(logits, options, random);
        counts[id] = (counts[id] ?? 0) + 1;
      }
      // 0.3, 0.7 and 1.9 hold 0.85 of the mass at temperature 1.
      const kept = options.topK === 4 ? [2, 4, 0, 3] : options.topP < 1 ? [2, 4, 0] : ranking(logits);
      const p = probabilities(
        kept.map((id) => logits[id] ?? 0),
        options.temperature,
      );
      const expected = logits.map((_, id) => p[kept.indexOf(id)] ?? 0);
      for (const [id, share] of expected.entries()) {
        // Five standard deviations of a binomial: one in a million.
        const bound = 5 * Math.sqrt((share * (1 - share)) / draws);
        expect(
          Math.abs((counts[id] ?? 0) / draws - share),
          JSON.stringify({ options, id }),
        ).toBeLessThanOrEqual(bound);
      }
    }
  });

  it("repeats itself with the seed, and not without", () => {
    const logits = Array.from({ length: 50 }, (_, i) => Math.sin(i));
    const run = (seed: number) => {
      const random = new Random(seed);
      return Array.from({ length: 30 }, () => sample(logits, all, random));
    };
    expect(run(3)).toEqual(run(3));
    expect(run(3)).not.toEqual(run(4));
  });
});
