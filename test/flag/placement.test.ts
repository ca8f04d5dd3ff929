import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FlagSequence, flagBatches, usableSequences } from "../../src/flag/data.js";
import { layout } from "../../src/flag/loss.js";
import { type Placement, placementLaw } from "../../src/flag/placement.js";
import type { Example } from "../../src/formats/jsonl.js";
import { Random } from "../../src/random.js";
import { byteTokenizer } from "../../src/tokenizer.js";

const LAWS: Placement[] = [
  "uniform",
  "onset",
  "fixed",
  "geometric(0.5)",
  "geometric(0.02)",
  "geometric(1)",
  "geometric(1e-12)",
];

/** P(i = k + m) for m = 0, 1, … as the definitions have it. */
function expected(placement: Placement, count: number): number[] {
  const p = Number(/\((.+)\)/.exec(placement)?.[1] ?? Number.NaN);
  const weights = Array.from({ length: count }, (_, m) => {
    if (placement === "uniform") return 1;
    if (placement === "onset") return m === 0 ? 1 : 0;
    return p * (1 - p) ** m;
  });
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum);
}

describe.each(LAWS)("the place under %s", (placement) => {
  it("lies in the response, at the onset or after it", () => {
    const place = placementLaw(placement);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 600 }),
        fc.nat(),
        fc.integer({ min: 0, max: 2 ** 31 }),
        (length, offset, seed) => {
          const k = offset % length;
          const { onset, insertAt } = place(k, length, new Random(seed));
          expect(onset).toBe(placement === "fixed" ? 0 : k);
          expect(Number.isInteger(insertAt) && insertAt >= onset && insertAt < length).toBe(true);
          if (placement === "fixed" || placement === "onset") expect(insertAt).toBe(onset);
        },
      ),
    );
  });
});

describe.each(LAWS.filter((law) => law !== "fixed"))("draws under %s", (placement) => {
  it("are distributed as the law says", () => {
    const place = placementLaw(placement);
    const [onset, length, draws] = [4, 12, 20_000];
    const random = new Random(17);
    const counts = new Array<number>(length - onset).fill(0);
    for (let i = 0; i < draws; i++) {
      const m = place(onset, length, random).insertAt - onset;
      counts[m] = (counts[m] ?? 0) + 1;
    }
    const chiSquare = expected(placement, length - onset).reduce((sum, p, m) => {
      const found = counts[m] ?? 0;
      // What cannot be must not be.
      if (p === 0) return sum + (found === 0 ? 0 : Infinity);
      return sum + (found - p * draws) ** 2 / (p * draws);
    }, 0);
    // 0.999 of chi-square with 7 degrees of freedom.
    expect(chiSquare).toBeLessThan(24.32);
  });
});

it.each([
  "",
  "random",
  "geometric",
  "geometric()",
  "geometric(0)",
  "geometric(-1)",
  "geometric(1.1)",
  "geometric(x)",
])("'%s' is no law", (text) => {
  expect(() => placementLaw(text as Placement)).toThrow(RangeError);
  expect(() => placementLaw(text as Placement)).toThrow(/^placement must be uniform, onset, geometric\(p\)/);
});

describe("Fixed-Pos", () => {
  const sequence: FlagSequence = { prompt: [1, 2], response: [3, 4, 5], onset: 2 };

  it("asks for the flag before the first token of the response, and for nothing but the reference after", () => {
    const sizes = { harmful: 1, benign: 0, placement: "fixed" } as const;
    const batch = flagBatches([sequence], [], sizes, new Random(1)).next();
    const found = layout(batch, 99);
    expect([...found.ids]).toEqual([1, 2, 99, 3, 4]);
    // After the prompt's last token.
    expect(found.ce).toEqual([1]);
    // After the flag, after 3 and after 4; the reference's after the prompt, after 3 and after 4.
    expect([found.kl, found.refKl]).toEqual([
      [2, 3, 4],
      [1, 2, 3],
    ]);
  });

  it("can use a response whose onset is past the cut", () => {
    const late: Example = { prompt: "a ", response: "0123456789", onset: 10 };
    const options = { maxResponse: 5, contextLength: 64, minOffset: 0 };
    const usable = (placement: Placement) =>
      usableSequences(byteTokenizer(), [late], "harmful", { ...options, placement });
    expect(usable("fixed")).toMatchObject({ sequences: [{ response: { length: 5 } }], leftOut: 0 });
    expect(usable("uniform")).toMatchObject({ sequences: [], leftOut: 1 });
  });
});
