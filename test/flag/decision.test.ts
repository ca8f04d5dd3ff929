import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Decision, DecisionTracker, formatDecision, parseDecision } from "../../src/flag/decision.js";
import { parsePolicy } from "../../src/flag/policy.js";

const levels = fc.double({ min: 0, max: 1, noNaN: true });
const readings = fc.array(
  fc.record({ probability: levels, likeliest: fc.boolean(), sampled: fc.boolean() }),
  { minLength: 1, maxLength: 30 },
);
type Readings = typeof readings extends fc.Arbitrary<infer T> ? T : never;

function raisedBy(decision: Decision, list: Readings): boolean[] {
  const tracker = new DecisionTracker(decision);
  return list.map((reading) => tracker.update(reading));
}

const holds = (rule: (list: Readings, level: number, decay: number) => void) =>
  fc.assert(fc.property(readings, levels, levels, (list, level, decay) => rule(list, level, decay)));

describe("a decision", () => {
  it("sampled and argmax look at the position alone", () => {
    holds((list) => {
      expect(raisedBy({ kind: "sampled" }, list)).toEqual(list.map(({ sampled }) => sampled));
      expect(raisedBy({ kind: "argmax" }, list)).toEqual(list.map(({ likeliest }) => likeliest));
    });
  });

  it("threshold is P >= level", () => {
    holds((list, level) => {
      expect(raisedBy({ kind: "threshold", level }, list)).toEqual(
        list.map(({ probability }) => probability >= level),
      );
    });
  });

  it("cumulative is 1 - product of (1 - P) >= level, and stays raised", () => {
    holds((list, level) => {
      const found = raisedBy({ kind: "cumulative", level }, list);
      const sums = list.map(
        (_, t) =>
          1 - list.slice(0, t + 1).reduce((product, { probability }) => product * (1 - probability), 1),
      );
      expect(found).toEqual(sums.map((sum) => sum >= level));
      expect(found.slice(found.indexOf(true)).every(Boolean) || !found.includes(true)).toBe(true);
      const tracker = new DecisionTracker({ kind: "argmax" });
      for (const reading of list) tracker.update(reading);
      expect(tracker.cumulative).toBeCloseTo(sums.at(-1) ?? 0, 12);
    });
  });

  it("ema is a moving average from 0", () => {
    holds((list, level, decay) => {
      // Σ (1 - decay) · decay^(t - s) · P_s
      const averages = list.map((_, t) =>
        list
          .slice(0, t + 1)
          .reduce((sum, { probability }, s) => sum + (1 - decay) * decay ** (t - s) * probability, 0),
      );
      fc.pre(averages.every((average) => Math.abs(average - level) > 1e-9));
      expect(raisedBy({ kind: "ema", decay, level }, list)).toEqual(
        averages.map((average) => average >= level),
      );
    });
  });
});

describe("what a decision compares with its level", () => {
  const kinds = fc.constantFrom("threshold", "cumulative", "ema");

  it("reaches it exactly where the decision is met", () => {
    fc.assert(
      fc.property(readings, kinds, levels, levels, fc.boolean(), (list, kind, decay, other, isTie) => {
        const highestAt = (level: number) => {
          const tracker = new DecisionTracker({ kind, decay, level } as Decision);
          const raised = list.map((reading) => tracker.update(reading)).includes(true);
          return { raised, highest: tracker.highest };
        };
        // A level as high as the score must be met: calibration relies on the last bit.
        const level = isTie ? highestAt(0).highest : other;
        const { raised, highest } = highestAt(level);
        expect(raised).toBe(highest >= level);
        expect(highest).toBe(highestAt(0).highest);
      }),
    );
  });

  it("is the largest P where it has no level", () => {
    holds((list) => {
      const tracker = new DecisionTracker({ kind: "argmax" });
      for (const reading of list) tracker.update(reading);
      expect(tracker.highest).toBe(Math.max(...list.map(({ probability }) => probability)));
    });
  });
});

describe("parsing", () => {
  it("undoes formatting, to the bit", () => {
    fc.assert(
      fc.property(levels, levels, (level, decay) => {
        const all: Decision[] = [
          { kind: "sampled" },
          { kind: "argmax" },
          { kind: "threshold", level },
          { kind: "cumulative", level },
          { kind: "ema", decay, level },
        ];
        for (const decision of all) {
          const again = parseDecision(formatDecision(decision));
          // -0 is written 0.
          expect(again).toEqual(JSON.parse(JSON.stringify(decision)));
        }
      }),
    );
  });

  it.each([
    ["sampled", { kind: "sampled" }],
    ["argmax", { kind: "argmax" }],
    ["threshold=0.5", { kind: "threshold", level: 0.5 }],
    ["threshold=0", { kind: "threshold", level: 0 }],
    ["cumulative=1", { kind: "cumulative", level: 1 }],
    ["ema=0.9,0.25", { kind: "ema", decay: 0.9, level: 0.25 }],
    ["threshold=1e-3", { kind: "threshold", level: 0.001 }],
  ])("%s", (text, expected) => {
    expect(parseDecision(text)).toEqual(expected);
  });

  it.each([
    "",
    "never",
    "sampled=1",
    "argmax=",
    "threshold",
    "threshold=",
    "threshold=x",
    "threshold=-0.1",
    "threshold=1.1",
    "threshold=NaN",
    "threshold=0.5=0.6",
    "threshold=0.5,0.6",
    "cumulative=2",
    "ema=0.9",
    "ema=,0.5",
    "ema=0.9,",
    "ema=0.9,0.5,0.1",
    "Threshold=0.5",
  ])("'%s' is refused, by its name", (text) => {
    expect(() => parseDecision(text)).toThrow(RangeError);
    expect(() => parseDecision(text)).toThrow(`'${text}'`);
  });

  it.each([
    ["stop", { kind: "stop" }],
    ["annotate", { kind: "annotate" }],
    ["annotate=shadow", { kind: "annotate", shadow: true }],
    ["replace=I can't help with that = sorry", { kind: "replace", text: "I can't help with that = sorry" }],
    ["replace=", { kind: "replace", text: "" }],
  ])("policy %s", (text, expected) => {
    expect(parsePolicy(text)).toEqual(expected);
  });

  it.each(["", "replace", "stop=1", "annotate=", "annotate=on", "STOP", "rollback"])(
    "policy '%s' is refused, by its name",
    (text) => {
      expect(() => parsePolicy(text)).toThrow(RangeError);
      expect(() => parsePolicy(text)).toThrow(`'${text}'`);
    },
  );
});
