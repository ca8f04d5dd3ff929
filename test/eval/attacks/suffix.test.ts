import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../../src/backend.js";
import { SuffixLoss } from "../../../src/eval/attacks/suffix-loss.js";
import { type SuffixProblem, suffixProblem } from "../../../src/eval/attacks/suffix-problem.js";
import { type SearchStep, searchSuffix } from "../../../src/eval/attacks/suffix-search.js";
import { toSequence } from "../../../src/flag/data.js";
import { addRedFlag, type FlaggedModel } from "../../../src/flag/vocab.js";
import type { Example } from "../../../src/formats/jsonl.js";
import { llama2cTokenizer } from "../../../src/formats/llama2c-tokenizer.js";
import { linearLayers, type ModelConfig } from "../../../src/model/config.js";
import { forward, head } from "../../../src/model/forward.js";
import { Random } from "../../../src/random.js";
import { Tape } from "../../../src/tape.js";
import { Arena } from "../../../src/tensor.js";
import { byteTokenizer, type Tokenizer } from "../../../src/tokenizer.js";
import { type ReferenceModel, referenceLogits, referenceOf, softmax } from "../../model/reference.js";
import { baseline, CONFIGS, llama, loudModel } from "../../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

/** Flags whose rows and additions have moved away from where they began. */
async function movedFlag(
  config: ModelConfig,
  tokenizer: Tokenizer | null = null,
  categories: readonly string[] = [],
): Promise<FlaggedModel> {
  const flagged = await addRedFlag(await loudModel(backend, config, tokenizer), { categories });
  const { parameters } = flagged.attach({ rank: 2, alpha: 4, targets: linearLayers(config) }, 3);
  const random = new Random(9);
  for (const [name, tensor] of parameters.entries()) {
    if (name.endsWith(".a")) continue;
    const values = await tensor.read();
    tensor.write(values.map((value) => value + 0.2 * random.normal()));
  }
  return flagged;
}

const PROBLEM: SuffixProblem = {
  before: [1, 2],
  after: [9],
  target: [6, 3, 8],
  start: [4, 4, 4],
  survives: () => true,
};

/** The loss in float64, with `step` of the one-hot of token `id` added at a position of the suffix. */
function referenceLoss(
  m: ReferenceModel,
  flagIds: readonly number[],
  suffix: readonly number[],
  flagWeight: number,
  { at = 0, id = 0, step = 0 } = {},
): number {
  const { before, after, target } = PROBLEM;
  const ids = [...before, ...suffix, ...after, ...target];
  const width = m.config.hiddenSize;
  const table = m.weights.get("embed.weight") ?? new Float64Array();
  const moved = new Float64Array(ids.length * width);
  for (let i = 0; i < width; i++)
    moved[(before.length + at) * width + i] = step * (table[id * width + i] ?? 0);
  const rows = referenceLogits(m, ids, moved)
    .map(softmax)
    .slice(-1 - target.length);
  const nats = target.reduce((sum, token, t) => sum - Math.log(rows[t]?.[token] ?? 0), 0) / target.length;
  const silence = (row: readonly number[]) => flagIds.reduce((rest, id) => rest - (row[id] ?? 0), 1);
  return rows.reduce((sum, row) => sum - flagWeight * Math.log(silence(row)), nats);
}

/** What the flag counts for, and the categories that have one. */
const HEEDS: [number, string[]][] = [
  [0, []],
  [1.5, []],
  [1.5, ["a", "b"]],
];

describe.each(CONFIGS)("a suffix's loss on %s", (_, config) => {
  it.each(HEEDS)("with the flag counting %d is the formula's: %j", async (flagWeight, categories) => {
    const flagged = await movedFlag(config, null, categories);
    const reference = await referenceOf(flagged.model, flagged.overlay);
    const suffixes = [
      [4, 4, 4],
      [0, 18, 7],
      [5, 4, 4],
    ];
    const loss = new SuffixLoss(flagged, PROBLEM, flagWeight);
    const found = await loss.evaluate(suffixes);
    for (const [i, suffix] of suffixes.entries()) {
      const expected = referenceLoss(reference, flagged.flagIds, suffix, flagWeight);
      expect((found[i] ?? Number.NaN) / expected).toBeCloseTo(1, 4);
    }
    // A candidate's loss does not depend on which others it is evaluated with.
    expect((await loss.evaluate([suffixes[1] ?? []]))[0]).toBeCloseTo(found[1] ?? 0, 5);
    loss.dispose();
    flagged.dispose();
  });

  it("does not depend on how many passes it takes", async () => {
    const flagged = await movedFlag(config);
    // More candidates than a pass of 2048 ids holds, behind more ids than a pass holds for so many.
    const problem = { ...PROBLEM, before: [1, 2, 3, 5, 8, 13, 3, 1, 2, 0, 7, 4] };
    const loss = new SuffixLoss(flagged, problem, 1);
    const suffixes = Array.from({ length: 300 }, (_, i) => [i % 19, (3 * i) % 17, 5]);
    const found = await loss.evaluate(suffixes);
    expect(found).toHaveLength(300);
    const arena = new Arena(backend);
    for (const i of [0, 150, 291, 292, 299]) {
      const tape = new Tape(arena, false);
      const ids = [...problem.before, ...(suffixes[i] ?? []), ...problem.after, ...problem.target];
      const { model, overlay, flagId } = flagged;
      const rows = await head(tape, model, forward(tape, model, ids, { overlay }), overlay).read();
      const width = rows.length / ids.length;
      const p = Array.from({ length: 4 }, (_, t) => {
        const row = ids.length - 4 + t;
        return softmax(rows.slice(row * width, (row + 1) * width));
      });
      const nats = problem.target.reduce((sum, id, t) => sum - Math.log(p[t]?.[id] ?? 0) / 3, 0);
      const expected = p.reduce((sum, row) => sum - Math.log(1 - (row[flagId] ?? 0)), nats);
      expect((found[i] ?? Number.NaN) / expected, `${i}`).toBeCloseTo(1, 4);
    }
    arena.dispose();
    loss.dispose();
    flagged.dispose();
  });

  it.each(HEEDS)(
    "with the flag counting %d has the one-hots' gradient: %j",
    async (flagWeight, categories) => {
      const flagged = await movedFlag(config, null, categories);
      const reference = await referenceOf(flagged.model, flagged.overlay);
      const loss = new SuffixLoss(flagged, PROBLEM, flagWeight);
      const suffix = [4, 11, 7];
      const gradient = await loss.gradient(suffix);
      expect(gradient.length).toBe(3 * config.vocabSize);
      const scale = Math.hypot(...gradient) / Math.sqrt(gradient.length);
      for (const at of [0, 1, 2]) {
        for (let id = 0; id < config.vocabSize; id += 3) {
          const h = 1e-5;
          const lossAt = (step: number) =>
            referenceLoss(reference, flagged.flagIds, suffix, flagWeight, { at, id, step });
          const slope = (lossAt(h) - lossAt(-h)) / (2 * h);
          // f32 through two layers and back, against central differences in float64.
          const found = gradient[at * config.vocabSize + id] ?? Number.NaN;
          expect(Math.abs(found - slope), `${at}, ${id}`).toBeLessThan(2e-3 * scale);
        }
      }
      loss.dispose();
      flagged.dispose();
    },
  );
});

/** A tokenizer that joins "ab", and "!!". */
function joining(): Tokenizer {
  const pieces = ["<unk>", "<s>", "</s>", " ", "a", "b", "!", "?", "ab", "!!"];
  const encoder = new TextEncoder();
  return llama2cTokenizer(pieces.map((piece, i) => ({ bytes: encoder.encode(piece), score: -i })));
}

describe("where a suffix stands", () => {
  const idsOf = (tokenizer: Tokenizer, example: Example) =>
    toSequence(tokenizer, example, { maxResponse: 9, contextLength: 99, minOffset: 0 });

  it.each<[string, Example, string]>([
    ["behind a prompt", { prompt: "tell me", response: "so" }, ""],
    [
      "behind the last user's message",
      {
        messages: [
          { role: "user", content: "hi" },
          { role: "assistant", content: "yes?" },
          { role: "user", content: "tell me" },
          { role: "assistant", content: "so" },
        ],
      },
      "\nassistant:",
    ],
  ])("is %s", (_, example, after) => {
    const tokenizer = byteTokenizer();
    const { prompt, response } = idsOf(tokenizer, example);
    const problem = suffixProblem(tokenizer, example, 6, response);
    if (!problem) throw new Error("no problem");
    expect(problem.target).toBe(response);
    expect(tokenizer.decode(problem.after)).toBe(after);
    expect([...problem.before, ...problem.after]).toEqual(prompt);
    expect(tokenizer.decode(problem.before).endsWith("tell me")).toBe(true);
    expect(tokenizer.decode(problem.start)).toBe(" ! ! !");
    expect(problem.survives(tokenizer.encode("abcdef"))).toBe(true);
    // Half a character, a special token, and another length's text.
    expect(problem.survives([0xc3, 0x20, 0x20, 0x20, 0x20, 0x20])).toBe(false);
    expect(problem.survives([257, 0x20, 0x20, 0x20, 0x20, 0x20])).toBe(false);
  });

  it("is where the tokenizer makes the same ids again", () => {
    const tokenizer = joining();
    const [space, a, b, bang, ab, bangs] = [3, 4, 5, 6, 8, 9];
    const problem = suffixProblem(tokenizer, { prompt: "b" }, 4, [a]);
    expect(problem?.start).toEqual([space, bang, space, bang]);
    expect(problem?.before).toEqual([1, space, b]);
    expect(problem?.survives([b, b, ab, space])).toBe(true);
    expect(problem?.survives([b, a, b, space])).toBe(false);
    expect(problem?.survives([bang, bang, b, space])).toBe(false);
    expect(problem?.survives([bangs, bang, b, space])).toBe(true);
    // It would join the prompt's last character.
    const joined = suffixProblem(tokenizer, { prompt: "a" }, 2, [a]);
    expect(joined?.survives([b, space])).toBe(false);
    expect(joined?.survives([a, space])).toBe(true);
    // "!" alone cannot make three tokens: "!!" is one.
    expect(suffixProblem(tokenizer, { prompt: "b" }, 3, [a])?.start).toEqual([bangs, bangs, bang]);
  });
});

describe("the search", () => {
  const config = { ...llama, vocabSize: 258, contextLength: 48 };
  const options = { steps: 6, width: 40, topK: 16 };
  const letters = Array.from({ length: 26 }, (_, i) => 97 + i);

  async function run(
    flagWeight = 0,
    survives: SuffixProblem["survives"] = () => true,
  ): Promise<{ steps: SearchStep[]; tried: (readonly number[])[]; again: number; flagged: FlaggedModel }> {
    const flagged = await movedFlag(config, byteTokenizer());
    const problem = { ...PROBLEM, start: [97, 97, 97, 97, 97], survives };
    const loss = new SuffixLoss(flagged, problem, flagWeight);
    const tried: (readonly number[])[] = [];
    const evaluate = loss.evaluate.bind(loss);
    loss.evaluate = (suffixes) => {
      tried.push(...suffixes);
      return evaluate(suffixes);
    };
    const steps: SearchStep[] = [];
    for await (const step of searchSuffix(loss, letters, options, new Random(1))) steps.push(step);
    const [again = Number.NaN] = await evaluate([steps.at(-1)?.suffix ?? []]);
    loss.dispose();
    return { steps, tried, again, flagged };
  }

  it("lowers the loss, by one allowed token a step, and repeats itself", async () => {
    const { steps, tried, again } = await run();
    expect(steps.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const losses = steps.map(({ loss }) => loss);
    expect(losses).toEqual([...losses].sort((a, b) => b - a));
    expect(losses.at(-1)).toBeLessThan((losses[0] ?? 0) - 0.5);
    expect(again).toBeCloseTo(losses.at(-1) ?? 0, 5);
    for (const suffix of tried) expect(suffix.every((id) => letters.includes(id))).toBe(true);
    const changed = (a: readonly number[], b: readonly number[]) => a.filter((id, i) => id !== b[i]).length;
    for (const suffix of tried.slice(1, 1 + options.width)) expect(changed(suffix, tried[0] ?? [])).toBe(1);
    expect((await run()).steps).toEqual(steps);
  });

  it("tries tokens that promise more than others", async () => {
    const flagged = await movedFlag(config, byteTokenizer());
    const start = [97, 97, 97, 97, 97];
    const meanLoss = async (topK: number) => {
      const loss = new SuffixLoss(flagged, { ...PROBLEM, start }, 0);
      const evaluate = loss.evaluate.bind(loss);
      const means: number[] = [];
      loss.evaluate = async (suffixes) => {
        const losses = await evaluate(suffixes);
        means.push(losses.reduce((sum, value) => sum + value, 0) / losses.length);
        return losses;
      };
      // So wide that every swap is tried.
      for await (const _ of searchSuffix(loss, letters, { steps: 1, width: 999, topK }, new Random(1)));
      loss.dispose();
      return means.at(-1) ?? Number.NaN;
    };
    expect(await meanLoss(3)).toBeLessThan(await meanLoss(26));
    flagged.dispose();
  });

  it("tries only what survives the tokenizer", async () => {
    const survives = (suffix: readonly number[]) => !suffix.includes(101);
    const { tried } = await run(0, survives);
    expect(tried.length).toBeGreaterThan(100);
    expect(tried.every(survives)).toBe(true);
    expect((await run()).tried.every(survives)).toBe(false);
    const { steps } = await run(0, (suffix) => suffix.every((id) => id === 97));
    expect(new Set(steps.map(({ suffix }) => suffix.join())).size).toBe(1);
  });

  it("of an adaptive attacker ends at a lower P(flag)", async () => {
    const silenceOf = async (flagWeight: number) => {
      const { steps, flagged } = await run(flagWeight);
      const problem = { ...PROBLEM, start: [97, 97, 97, 97, 97] };
      const [plain, both] = [new SuffixLoss(flagged, problem, 0), new SuffixLoss(flagged, problem, 1)];
      const suffix = [steps.at(-1)?.suffix ?? []];
      return ((await both.evaluate(suffix))[0] ?? 0) - ((await plain.evaluate(suffix))[0] ?? 0);
    };
    expect(await silenceOf(20)).toBeLessThan(await silenceOf(0));
  });

  it("ends by its signal", async () => {
    const flagged = await movedFlag(config, byteTokenizer());
    const loss = new SuffixLoss(flagged, { ...PROBLEM, start: [97, 97] }, 0);
    const controller = new AbortController();
    const reason = new Error("enough");
    const search = searchSuffix(loss, letters, options, new Random(1), controller.signal);
    await search.next();
    controller.abort(reason);
    await expect(search.next()).rejects.toBe(reason);
    loss.dispose();
  });
});
