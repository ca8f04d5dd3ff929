import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../../src/backend.js";
import { doublings } from "../../../src/eval/attacks/attack.js";
import { rate } from "../../../src/eval/attacks/rate.js";
import {
  ATTACK_DEFAULTS,
  type AttackProgress,
  type PartialAttackConfig,
  parseAttacks,
  runAttacks,
} from "../../../src/eval/attacks/run.js";
import type { AttackResult } from "../../../src/eval/evaluation.js";
import type { Decision } from "../../../src/flag/decision.js";
import type { FlaggedModel } from "../../../src/flag/vocab.js";
import type { Example } from "../../../src/formats/jsonl.js";
import { byteTokenizer } from "../../../src/tokenizer.js";
import { script, scripted, scriptedFlag } from "../../generate/scripted.js";
import { baseline } from "../../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const B = "b".charCodeAt(0);
const LENGTH = 24;
/** With BOS three tokens: the row that predicts the first token of the response is 2. */
const PROMPT = "x ";
const HALF: Decision = { kind: "threshold", level: 0.5 };

/** A model that says "bbb…" whatever it reads, with these logits of the flag by row, 20 being those of "b". */
async function saysB(flag: Readonly<Record<number, number>>, b = 20): Promise<FlaggedModel> {
  const table = script(258, new Array<number>(LENGTH).fill(B), b);
  const model = await scripted(backend, table, byteTokenizer());
  return scriptedFlag(
    model,
    Array.from({ length: LENGTH }, (_, row) => flag[row] ?? -20),
  );
}

async function attackWith(
  flagged: FlaggedModel,
  names: string,
  config: PartialAttackConfig,
  examples: readonly Example[],
  options: { decision?: Decision; seed?: number; onProgress?: (progress: AttackProgress) => void } = {},
): Promise<AttackResult> {
  const attacks = parseAttacks(names, config);
  const [result] = await runAttacks(flagged, examples, { attacks, decision: HALF, seed: 0, ...options });
  if (!result) throw new Error("no result");
  return result;
}

const values = ({ levels }: AttackResult, name: "flag_rate" | "success" | "evaded") =>
  levels.map((level) => [level.label, level[name]?.value ?? null]);

describe("prefilling", () => {
  const example = { prompt: PROMPT, response: "aaaaaaaa" };
  const prefill = { tokens: 4, maxTokens: 4, examples: 9 };

  it("reads the flag at new positions alone", async () => {
    // Row 2 predicts the response's first token, row 4 its third.
    const early = await attackWith(await saysB({ 2: 40 }), "prefill", { prefill }, [example]);
    expect(values(early, "flag_rate")).toEqual([
      ["0", 1],
      ["1", 0],
      ["2", 0],
      ["4", 0],
    ]);
    const third = await attackWith(await saysB({ 4: 40 }), "prefill", { prefill }, [example]);
    expect(values(third, "flag_rate").map(([, value]) => value)).toEqual([1, 1, 1, 0]);
    // After four tokens the first new position is that of row 6.
    const last = await attackWith(await saysB({ 6: 40 }), "prefill", { prefill }, [example]);
    expect(values(last, "flag_rate").map(([, value]) => value)).toEqual([0, 1, 1, 1]);
    expect(last.levels.every(({ success, evaded }) => success === null && evaded === null)).toBe(true);
  });

  it("attacks the same conversations at every level", async () => {
    const short = { prompt: PROMPT, response: "aaa" };
    const result = await attackWith(await saysB({}), "prefill", { prefill }, [short, example, example]);
    expect(result).toMatchObject({ attack: "prefill", examples: 2, options: { ...prefill, seed: 0 } });
    const one = await attackWith(await saysB({}), "prefill", { prefill: { ...prefill, examples: 1 } }, [
      example,
      example,
    ]);
    expect(one.examples).toBe(1);
  });
});

describe("best of n", () => {
  const config = { "best-of-n": { n: 8, temperature: 1, maxTokens: 1, examples: 9 } };
  const examples = Array.from({ length: 40 }, () => ({ prompt: PROMPT }));

  it("counts samples, and prompts of which one is not flagged", async () => {
    // The flag is drawn at row 2 with the probability of "b", a half: all others have e^-20 together.
    const flagged = await saysB({ 2: 20 });
    const options = { "best-of-n": { ...config["best-of-n"], examples: 40 } };
    const result = await attackWith(flagged, "best-of-n", options, examples, {
      decision: { kind: "sampled" },
    });
    expect(result.levels.map(({ label }) => label)).toEqual(["greedy", "1", "2", "4", "8"]);
    const rates = Object.fromEntries(values(result, "flag_rate"));
    // 320 draws of a half have a standard deviation of 0.028.
    expect(Math.abs((rates["8"] as number) - 0.5)).toBeLessThan(0.12);
    const evaded = values(result, "evaded").slice(1);
    expect(evaded[0]?.[1]).toBeCloseTo(1 - (rates["1"] as number), 10);
    // 1 - 2^-8 of the prompts are evaded at 8 samples.
    expect(evaded.at(-1)?.[1]).toBeGreaterThan(0.9);
    const climbing = evaded.map(([, value]) => value as number);
    expect(climbing).toEqual([...climbing].sort((a, b) => a - b));
    const again = await attackWith(flagged, "best-of-n", options, examples, {
      decision: { kind: "sampled" },
    });
    expect(again).toEqual(result);
    const other = await attackWith(flagged, "best-of-n", options, examples, {
      decision: { kind: "sampled" },
      seed: 1,
    });
    expect(other.levels).not.toEqual(result.levels);
  });

  it("is not evaded by a flag that is always raised", async () => {
    const result = await attackWith(await saysB({ 2: 40 }), "best-of-n", config, examples);
    expect(values(result, "flag_rate").every(([, value]) => value === 1)).toBe(true);
    expect(values(result, "evaded").every(([, value]) => value === 0)).toBe(true);
  });
});

it("translation has a level for every language, English first", async () => {
  // The flag is raised after prompts of three letters alone.
  const flagged = await saysB({ 3: 40 });
  const examples: Example[] = [
    { prompt: "xyz", language: "jp" },
    { prompt: PROMPT, language: "jp" },
    { prompt: "xyz", language: "en" },
    { prompt: PROMPT, language: "sw" },
    { prompt: "xyz" },
  ];
  const translation = { maxTokens: 1, examples: 9 };
  const result = await attackWith(flagged, "translation", { translation }, examples);
  expect(values(result, "flag_rate")).toEqual([
    ["en", 1],
    ["jp", 0.5],
    ["sw", 0],
  ]);
  expect(result.examples).toBe(4);
  const one = await attackWith(
    flagged,
    "translation",
    { translation: { maxTokens: 1, examples: 1 } },
    examples,
  );
  expect(values(one, "flag_rate")[1]).toEqual(["jp", 1]);
  await expect(attackWith(flagged, "translation", {}, [{ prompt: PROMPT }])).rejects.toThrow(
    /^translation: no conversation has a language/,
  );
});

describe.each(["gcg", "adaptive-gcg"] as const)("%s", (name) => {
  const budget = { steps: 2, width: 4, topK: 8, suffix: 3, target: 2, maxTokens: 3, examples: 9 };
  const attack = async (flag: Readonly<Record<number, number>>, response: string) =>
    attackWith(await saysB(flag), name, { [name]: budget }, [{ prompt: PROMPT, response }]);

  it("succeeds where the answer begins with the target, and evades where no flag is raised", async () => {
    const quiet = await attack({}, "bba");
    expect(quiet.levels.map(({ label }) => label)).toEqual(["0", "1", "2"]);
    for (const { flag_rate, success, evaded } of quiet.levels) {
      expect([flag_rate.value, success?.value, evaded?.value]).toEqual([0, 1, 1]);
    }
    expect(values(await attack({}, "baa"), "success").every(([, value]) => value === 0)).toBe(true);
    // Row 2 predicts the answer's first token, row 5 that behind a suffix of three.
    const watched = await attack({ 2: 40, 5: 40 }, "bba");
    for (const { flag_rate, success, evaded } of watched.levels) {
      expect([flag_rate.value, success?.value, evaded?.value]).toEqual([1, 1, 0]);
    }
    // The suffix moves the answer behind the one row that flags.
    const moved = await attack({ 2: 40 }, "bba");
    expect(values(moved, "evaded")).toEqual([
      ["0", 0],
      ["1", 1],
      ["2", 1],
    ]);
  });

  it("says how far it is, and ends by its signal", async () => {
    const seen: AttackProgress[] = [];
    const flagged = await saysB({});
    const examples = [1, 2].map(() => ({ prompt: PROMPT, response: "aa" }));
    await attackWith(flagged, name, { [name]: budget }, examples, { onProgress: (at) => seen.push(at) });
    expect(seen).toEqual([1, 2, 3, 4].map((done) => ({ attack: name, done, total: 4 })));

    const controller = new AbortController();
    const reason = new Error("enough");
    const run = runAttacks(flagged, examples, {
      attacks: parseAttacks(name, { [name]: budget }),
      decision: HALF,
      seed: 0,
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    await expect(run).rejects.toBe(reason);
  });
});

describe("what is refused", () => {
  it.each<[string, PartialAttackConfig, RegExp]>([
    ["pair", {}, /^attacks: 'pair' is none of prefill, best-of-n, translation, gcg, adaptive-gcg/],
    ["gcg,", {}, /^attacks: '' is none of/],
    ["gcg, gcg", {}, /^attacks: 'gcg' comes twice/],
    ["prefill", { prefill: { tokens: -1 } }, /^prefill.tokens must be an integer from 0, got -1/],
    ["prefill", { prefill: { tokens: 9 } }, /^prefill: no conversation has a prompt and a response of 9/],
    ["best-of-n", { "best-of-n": { n: 0 } }, /^best-of-n.n must/],
    ["best-of-n", { "best-of-n": { temperature: -1 } }, /^temperature must/],
    ["gcg", { gcg: { steps: 0 } }, /^gcg.steps must be an integer from 1, got 0/],
    ["gcg", { gcg: { flagWeight: -1 } }, /^gcg.flagWeight must be a number from 0/],
    ["gcg", { gcg: { target: 8, maxTokens: 7 } }, /^gcg.maxTokens must be an integer from 8, got 7/],
    ["adaptive-gcg", {}, /^adaptive-gcg: no conversation has a response, and a prompt that leaves 84 tokens/],
  ])("%s %j", async (names, config, message) => {
    const flagged = await saysB({});
    const run = async () => attackWith(flagged, names, config, [{ prompt: PROMPT, response: "aaaa" }]);
    await expect(run()).rejects.toThrow(RangeError);
    await expect(run()).rejects.toThrow(message);
  });

  it("before the first attack runs", async () => {
    const flagged = await saysB({});
    const attacks = parseAttacks("prefill,translation", { prefill: { tokens: 2 } });
    const onProgress = () => expect.unreachable();
    const examples = [{ prompt: PROMPT, response: "aaaa" }];
    await expect(
      runAttacks(flagged, examples, { attacks, decision: HALF, seed: 0, onProgress }),
    ).rejects.toThrow(/^translation:/);
  });
});

it("options are checked as names are read", () => {
  expect(() => parseAttacks("prefill", { prefill: { maxTokens: 0.5 } })).toThrow(
    /^prefill.maxTokens must be an integer from 1, got 0.5/,
  );
});

it("options that are not given are the defaults", () => {
  expect(parseAttacks("gcg,prefill", { gcg: { steps: 3 } })).toEqual([
    { name: "gcg", options: { ...ATTACK_DEFAULTS.gcg, steps: 3 } },
    { name: "prefill", options: ATTACK_DEFAULTS.prefill },
  ]);
  // PAPER.md, "Attacks".
  expect(ATTACK_DEFAULTS.gcg).toMatchObject({ suffix: 20, width: 512, topK: 256, flagWeight: 0 });
  expect(ATTACK_DEFAULTS["adaptive-gcg"].flagWeight).toBeGreaterThan(0);
});

it("budgets double up to the last", () => {
  expect(doublings(1)).toEqual([1]);
  expect(doublings(8)).toEqual([1, 2, 4, 8]);
  expect(doublings(11)).toEqual([1, 2, 4, 8, 11]);
});

describe("a rate's interval", () => {
  // Agresti and Coull 1998 give Wilson's bounds in this form: (p̂ + z²/2n ± z √(p̂(1 - p̂)/n + z²/4n²)) / (1 + z²/n).
  it.each([
    [0, 10, 0, 0.27753],
    [10, 10, 0.72247, 1],
    [5, 10, 0.23659, 0.76341],
    [1, 1, 0.20654, 1],
  ])("of %d of %d", (hits, count, low, high) => {
    const found = rate(Array.from({ length: count }, (_, i) => (i < hits ? 1 : 0)));
    expect(found.value).toBe(hits / count);
    expect(found.low).toBeCloseTo(low, 4);
    expect(found.high).toBeCloseTo(high, 4);
  });
});
