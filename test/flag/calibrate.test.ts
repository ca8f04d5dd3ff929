import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { atLevel, calibrate, type LevelRule, parseLevelRule } from "../../src/flag/calibrate.js";
import { conformalLevel, countWithin, nextUp } from "../../src/flag/conformal.js";
import { FlagScorer } from "../../src/flag/score.js";
import { addRedFlag, type FlaggedModel } from "../../src/flag/vocab.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { script, scripted, scriptedFlag } from "../generate/scripted.js";
import { baseline, llama, loudModel, randomIds } from "../model/tiny.js";

const rates = fc.oneof(
  fc.constantFrom(0.5, 0.29, 0.1, 0.05, 1 / 3),
  fc.double({ min: 0.02, max: 0.98, noNaN: true }),
);
const scoresOf = (score: fc.Arbitrary<number>) => fc.array(score, { minLength: 1, maxLength: 80 });
const withTies = scoresOf(
  fc.oneof(
    fc.integer({ min: 0, max: 5 }).map((n) => n / 5),
    fc.double({ min: 0, max: 1 }),
  ),
);
const distinct = fc.uniqueArray(fc.double({ min: 0, max: 1, noNaN: true }), {
  minLength: 1,
  maxLength: 80,
  comparator: (a, b) => a === b,
});

/** How many of the scores are flagged where each in turn is the new one, and the level comes of the others. */
function flaggedInTurn(scores: readonly number[], rate: number): number {
  return scores.filter((score, i) => score >= conformalLevel(scores.toSpliced(i, 1), rate)).length;
}

describe("a conformal level", () => {
  it("lets no more than its rate through, whichever of exchangeable scores is the new one", () => {
    fc.assert(
      fc.property(withTies, rates, (scores, rate) => {
        fc.pre(countWithin(rate, scores.length) > 0 && scores.every((score) => !Number.isNaN(score)));
        expect(flaggedInTurn(scores, rate)).toBeLessThanOrEqual(countWithin(rate, scores.length));
      }),
    );
  });

  it("gives nothing away: where no two are equal, exactly as many", () => {
    fc.assert(
      fc.property(distinct, rates, (scores, rate) => {
        const allowed = countWithin(rate, scores.length);
        fc.pre(allowed > 0 && allowed < scores.length);
        expect(flaggedInTurn(scores, rate)).toBe(allowed);
      }),
    );
  });

  it("lies just above the k-th smallest score, k = ⌈(n + 1)(1 - α)⌉", () => {
    const scores = Array.from({ length: 199 }, (_, i) => i / 1000);
    // k = 198 of 199: the scores are 0, 1, … thousandths.
    expect(conformalLevel(scores, 0.01)).toBe(nextUp(0.197));
    expect(conformalLevel(scores.slice(0, 99), 0.01)).toBe(nextUp(0.098));
    expect(conformalLevel(scores, 0.5)).toBe(nextUp(0.099));
  });

  it("says how many scores a rate needs, and takes as many", () => {
    fc.assert(
      fc.property(fc.oneof(rates, fc.constantFrom(0.01, 0.001, 1 / 49, 1 / 107)), (rate) => {
        const [, needed = ""] = /needs at least (\d+) /.exec(messageOf(() => conformalLevel([], rate))) ?? [];
        const most = Array.from({ length: Number(needed) }, (_, i) => i);
        expect(conformalLevel(most, rate)).toBe(nextUp(most.length - 1));
        expect(() => conformalLevel(most.slice(1), rate)).toThrow(`needs at least ${needed} `);
      }),
    );
    expect(() => conformalLevel(Array(98).fill(0), 0.01)).toThrow(
      "fpr: a rate of 0.01 needs at least 99 benign conversations, there are 98",
    );
  });

  it.each([0, 1, -0.1, 1.5, Number.NaN])("refuses a rate of %d", (rate) => {
    expect(() => conformalLevel([1, 2, 3], rate)).toThrow(/^fpr must be a number between 0 and 1/);
  });
});

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof Error) return error.message;
  }
  throw new Error("expected an error");
}

it("the next number up is the nearest above", () => {
  fc.assert(
    fc.property(fc.double({ noNaN: true, noDefaultInfinity: true, max: 1e308 }), (x) => {
      const up = nextUp(x);
      expect(up).toBeGreaterThan(x);
      // Nothing lies between: the middle rounds to one of both.
      const middle = x / 2 + up / 2;
      if (Math.abs(x) > 1e-300) expect(middle === x || middle === up).toBe(true);
    }),
  );
  expect(nextUp(1)).toBe(1 + Number.EPSILON);
  expect([nextUp(0), nextUp(-0), nextUp(-Number.MIN_VALUE)]).toEqual([
    Number.MIN_VALUE,
    Number.MIN_VALUE,
    -0,
  ]);
});

describe("a decision that is fitted", () => {
  let backend: Backend;
  let flagged: FlaggedModel;
  const conversations = Array.from({ length: 40 }, (_, i) => ({
    prompt: randomIds(3, 258, 2 * i + 1),
    response: randomIds(1 + (i % 9), 258, 2 * i + 2),
  }));
  beforeAll(async () => {
    backend = await baseline();
    const config = { ...llama, vocabSize: 258 };
    flagged = await addRedFlag(await loudModel(backend, config, byteTokenizer()), { init: "copy:<eos>" });
  });

  it.each<LevelRule>([{ kind: "threshold" }, { kind: "cumulative" }, { kind: "ema", decay: 0.8 }])(
    "%j flags exactly as many of its own data as it may",
    async (rule) => {
      const rate = 0.1;
      let read = 0;
      const decision = await calibrate(flagged, conversations, {
        rule,
        falsePositiveRate: rate,
        onRead: () => read++,
      });
      expect(read).toBe(40);
      expect(decision).toEqual(atLevel(rule, "level" in decision ? decision.level : Number.NaN));
      const scorer = new FlagScorer(flagged);
      let raised = 0;
      for (const each of conversations) if ((await scorer.score(each, decision)).first !== null) raised++;
      scorer.dispose();
      // ⌊41 · 0.1⌋ of 41 places, of which 40 are taken by data: above the 37th smallest lie three.
      expect(raised).toBe(3);
    },
  );

  it("is refused where too many are flagged for certain", async () => {
    const model = await scripted(backend, script(20, [1, 2, 3, 4]));
    const certain = scriptedFlag(model, [200, 200, 200, 200]);
    const options = { rule: { kind: "threshold" }, falsePositiveRate: 0.5 } as const;
    const same = Array.from({ length: 3 }, () => ({ prompt: [0], response: [1] }));
    await expect(calibrate(certain, same, options)).rejects.toThrow(/^fpr: no level keeps to a rate of 0\.5/);
  });
});

it("a flag that has diverged is told, not fitted", async () => {
  const backend = await baseline();
  const model = await scripted(backend, script(20, [1, 2, 3, 4]));
  const broken = scriptedFlag(model, Array(4).fill(Number.NaN));
  const options = { rule: { kind: "threshold" }, falsePositiveRate: 0.5 } as const;
  await expect(calibrate(broken, [{ prompt: [0], response: [1] }], options)).rejects.toThrow(
    /P\(flag\) is NaN/,
  );
});

describe("a rule without a level", () => {
  it.each([
    ["threshold", { kind: "threshold" }],
    ["cumulative", { kind: "cumulative" }],
    ["ema=0.9", { kind: "ema", decay: 0.9 }],
    ["ema=0", { kind: "ema", decay: 0 }],
  ])("%s", (text, expected) => {
    expect(parseLevelRule(text)).toEqual(expected);
  });

  it.each([
    "",
    "argmax",
    "sampled",
    "threshold=0.5",
    "ema",
    "ema=",
    "ema=1",
    "ema=-1",
    "ema=0.9,0.5",
    "ema=x",
  ])("'%s' is refused, by its name", (text) => {
    expect(() => parseLevelRule(text)).toThrow(RangeError);
    expect(() => parseLevelRule(text)).toThrow(`'${text}'`);
  });
});
