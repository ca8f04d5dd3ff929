import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { FormatError } from "../../src/errors.js";
import { toSequence } from "../../src/flag/data.js";
import { type GenerateStep, generate } from "../../src/flag/generate.js";
import { FLAG_LOSS, type FlagBatch, redFlagLoss } from "../../src/flag/loss.js";
import { flagMonitor } from "../../src/flag/monitor.js";
import { FlagScorer } from "../../src/flag/score.js";
import { loadRedFlag, saveRedFlag } from "../../src/flag/store.js";
import { trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag, type FlaggedModel, type RedFlagOptions } from "../../src/flag/vocab.js";
import { openFiles } from "../../src/formats/files.js";
import type { Example } from "../../src/formats/jsonl.js";
import { readAdapter, writeAdapter } from "../../src/formats/peft.js";
import { linearLayers, type ModelConfig } from "../../src/model/config.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { AdamW } from "../../src/train/optimiser.js";
import { rejection, temporaryFolder } from "../formats/helpers.js";
import { referenceOf } from "../model/reference.js";
import { baseline, llama, logitsOf, loudModel, mistral } from "../model/tiny.js";
import { nextAfter, referenceTerms, weighted } from "./reference.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const tokenizer = byteTokenizer();
const CATEGORIES = ["wolves", "foxes", "other"];
const MODELS: [string, ModelConfig][] = [
  ["tied", llama],
  ["untied", mistral],
];

/** Flags whose rows and additions have moved away from where they began. */
async function moved(config: ModelConfig, options: RedFlagOptions = {}): Promise<FlaggedModel> {
  const model = await loudModel(backend, config, config.vocabSize === 258 ? tokenizer : null);
  const flagged = await addRedFlag(model, { categories: CATEGORIES, ...options });
  const adapter = flagged.attach({ rank: 2, alpha: 4, targets: linearLayers(config) }, 3);
  const random = new Random(9);
  for (const [name, tensor] of adapter.parameters.entries()) {
    if (name.endsWith(".a")) continue;
    tensor.write((await tensor.read()).map((value) => value + 0.2 * random.normal()));
  }
  return flagged;
}

describe("a flag for each category", () => {
  it("has a row of its own, the appended ones behind the unused ones of the matrix", async () => {
    // One row of the matrix is behind the tokenizer's last token, two rows are appended.
    const model = await loudModel(backend, { ...llama, vocabSize: 259 }, tokenizer);
    const flagged = await addRedFlag(model, { categories: CATEGORIES });
    expect(flagged.flagIds).toEqual([258, 259, 260]);
    expect([...CATEGORIES, undefined, "bears"].map((category) => flagged.flagFor(category))).toEqual([
      258, 259, 260, 260, 260,
    ]);
    expect([258, 260, 7].map((id) => flagged.categoryOf(id))).toEqual(["wolves", "other", null]);
    // The mean of the tokenizer's rows, for each.
    const one = await addRedFlag(model);
    const row = Array.from(one.initial.input);
    expect(Array.from(flagged.initial.input)).toEqual([...row, ...row, ...row]);
    expect((await logitsOf(model, [1], { overlay: flagged.overlay })).length).toBe(261);
  });

  it("reuses a token each, with its row", async () => {
    const model = await loudModel(backend, { ...mistral, vocabSize: 258 }, tokenizer);
    const reuse = { categories: ["wolves", "foxes"], reuse: ["<eos>", 3], init: "reserved" } as const;
    const flagged = await addRedFlag(model, reuse);
    expect(flagged.flagIds).toEqual([257, 3]);
    const plain = await logitsOf(model, [257, 3, 5]);
    expect(await logitsOf(model, [257, 3, 5], { overlay: flagged.overlay })).toEqual(plain);
    const normal = await addRedFlag(model, { ...reuse, init: "normal(1)", seed: 3 });
    const rows = normal.initial.input;
    expect(rows.slice(0, 16)).not.toEqual(rows.slice(16));
  });

  it.each<[RedFlagOptions, RegExp]>([
    [{ categories: ["a", "b", "a"] }, /^categories: 'a' is empty or comes twice/],
    [{ categories: [""] }, /^categories: '' is empty/],
    [{ categories: ["a", "b"], reuse: 3 }, /^reuse must name 2 tokens, one for each category, got '3'/],
    [{ categories: ["a", "b"], reuse: [3, 3] }, /^reuse must name 2 tokens/],
    [{ reuse: [3, 4] }, /^reuse must name one token, got '3', '4'/],
  ])("%j is refused", async (options, message) => {
    const model = await loudModel(backend, llama);
    await expect(addRedFlag(model, options)).rejects.toThrow(RangeError);
    await expect(addRedFlag(model, options)).rejects.toThrow(message);
  });
});

describe.each(MODELS)("the loss of several flags on a %s model", (_, config) => {
  it("is the formulas', and so are its gradients", async () => {
    const flagged = await moved(config);
    const { adapter } = flagged;
    if (!adapter) throw new Error("no adapter");
    const batch: FlagBatch = {
      harmful: [
        { prompt: [1, 2], response: [3, 4, 5, 6], onset: 1, insertAt: 2, flagId: 20 },
        { prompt: [8], response: [9, 10], onset: 0, insertAt: 0, flagId: 21 },
        { prompt: [4], response: [2, 1], onset: 0, insertAt: 1 },
      ],
      benign: [{ prompt: [5], response: [6, 7] }],
    };
    const now = await referenceOf(flagged.model, adapter);
    const before = await referenceOf(flagged.model, flagged.reference);
    const optimiser = new AdamW(adapter.parameters);
    const tape = new Tape(new Arena(backend));
    const read = redFlagLoss(flagged)(tape, batch, 1);
    tape.backward();
    const report = await read();
    const expected = referenceTerms(batch, now, before, FLAG_LOSS, 19);
    for (const name of ["ce", "post", "benign"] as const) {
      expect((report.terms[name] ?? Number.NaN) / expected[name], name).toBeCloseTo(1, 3);
    }
    const side = config.tied ? "input" : "output";
    const gradient = await optimiser.gradients.get(`rows.${side}`).read();
    for (const [i, id] of flagged.flagIds.entries()) {
      const row = now[side].get(id) ?? new Float64Array();
      const own = gradient.subarray(i * 16, (i + 1) * 16);
      const scale = Math.hypot(...own) / 4;
      for (const at of [2, 11]) {
        const was = row[at] ?? 0;
        const [up = 0, down = 0] = [1e-5, -1e-5].map((h) => {
          row[at] = was + h;
          return weighted(referenceTerms(batch, now, before, FLAG_LOSS, 19), FLAG_LOSS);
        });
        row[at] = was;
        expect(Math.abs((own[at] ?? Number.NaN) - (up - down) / 2e-5), `${id}[${at}]`).toBeLessThan(
          2e-3 * scale,
        );
      }
    }
    optimiser.dispose();
  });

  it("leaves P(flag) the sum over them, and tells the likeliest's category", async () => {
    const flagged = await moved(config);
    const now = await referenceOf(flagged.model, flagged.overlay);
    const response = [3, 4, 5, 6];
    const each = [0, 1, 2, 3, 4].map((n) => {
      const next = nextAfter(now, [1, 2, ...response.slice(0, n)]);
      return flagged.flagIds.map((id) => next[id] ?? 0);
    });
    const sums = each.map((list) => list.reduce((sum, p) => sum + p, 0));
    const scorer = new FlagScorer(flagged);
    const found = await scorer.score({ prompt: [1, 2], response });
    expect([...found.probabilities].map((p, t) => p / (sums[t] ?? 0))).toEqual(
      sums.map(() => expect.closeTo(1, 3)),
    );
    const highest = each[sums.indexOf(Math.max(...sums))] ?? [];
    expect(found.category).toBe(CATEGORIES[highest.indexOf(Math.max(...highest))]);
    scorer.dispose();

    const decision = { kind: "threshold", level: 1 } as const;
    const steps: GenerateStep[] = [];
    for await (const step of generate(flagged, [1, 2], { decision, maxTokens: 4 })) steps.push(step);
    const [first] = steps;
    expect((first?.flagProbability ?? 0) / (sums[0] ?? 0)).toBeCloseTo(1, 3);
    const atFirst = each[0] ?? [];
    expect(first?.flagCategory).toBe(CATEGORIES[atFirst.indexOf(Math.max(...atFirst))]);
    expect(steps.every(({ token }) => token === null || !flagged.isFlag(token))).toBe(true);
  });
});

describe("the monitor of several flags", () => {
  const observation = { generated: [], likeliest: 7, logSumExp: Math.log(10), sampled: 7 };
  // P of 0.1 and 0.4.
  const logits = Float32Array.of(0, Math.log(4));

  it("reads each and their sum, and places the likeliest", () => {
    const monitor = flagMonitor([5, 6], { kind: "threshold", level: 0.45 }, { kind: "annotate" });
    expect([monitor.watches, monitor.banned]).toEqual([[5, 6], new Set([5, 6])]);
    const { verdict, notes } = monitor.observe({ ...observation, logits });
    expect(verdict).toEqual({ action: "append", ids: [6] });
    expect(notes).toMatchObject({ flagId: 6, raised: true });
    expect(notes.flagProbability).toBeCloseTo(0.5, 6);
    expect((notes.flagProbabilities as number[]).map((p) => p.toFixed(6))).toEqual(["0.100000", "0.400000"]);
  });

  it("takes any of them as the likeliest, and the one drawn as it is", () => {
    const argmax = flagMonitor([5, 6], { kind: "argmax" }, { kind: "stop" });
    expect(argmax.observe({ ...observation, logits }).notes.raised).toBe(false);
    expect(argmax.observe({ ...observation, logits, likeliest: 5 }).notes.raised).toBe(true);
    const sampled = flagMonitor([5, 6], { kind: "sampled" }, { kind: "annotate" });
    expect(sampled.banned).toBeUndefined();
    expect(sampled.observe({ ...observation, logits, sampled: 5 }).verdict).toEqual({
      action: "append",
      ids: [5],
    });
  });
});

describe("several flags in a folder", () => {
  const config = { ...mistral, vocabSize: 258 };

  it.each<RedFlagOptions>([
    {},
    { init: "normal(0.3)", seed: 5 },
    { categories: ["wolves", "foxes"], reuse: ["<eos>", 3], init: "reserved" },
  ])("%j are the same again", async (options) => {
    const flagged = await moved(config, options);
    const folder = join(await temporaryFolder(), "adapter");
    await saveRedFlag(flagged, folder);
    const json = JSON.parse(await readFile(join(folder, "adapter_config.json"), "utf8"));
    expect(json.trainable_token_indices).toEqual({
      embed_tokens: flagged.flagIds,
      lm_head: flagged.flagIds,
    });
    const again = await loadRedFlag(flagged.model, folder);
    expect([again.flagIds, again.categories]).toEqual([flagged.flagIds, flagged.categories]);
    const logits = ({ model, overlay }: FlaggedModel) => logitsOf(model, [1, 258 - 1, 3], { overlay });
    expect(await logits(again)).toEqual(await logits(flagged));
    expect(again.initial).toEqual(flagged.initial);
  });

  it("are refused where one row is not in the head, or what they are for is not told", async () => {
    const flagged = await moved(config);
    const folder = join(await temporaryFolder(), "adapter");
    await saveRedFlag(flagged, folder);
    const data = await readAdapter(await openFiles(folder), config);
    if (!data.rows) throw new Error("no rows");
    const written = async (changes: Partial<typeof data>) => {
      const other = join(await temporaryFolder(), "other");
      await mkdir(other);
      await writeAdapter(other, { ...data, ...changes }, config);
      return rejection(loadRedFlag(flagged.model, other));
    };
    const output = data.rows.output.slice();
    output.set(flagged.initial.output.subarray(16, 32), 16);
    const untrained = await written({ rows: { ...data.rows, output } });
    expect(untrained).toBeInstanceOf(FormatError);
    expect(untrained.message).toMatch(/trains flag 259's embedding, but the head has its untrained row/);
    const few = await written({ facts: { ...data.facts, categories: ["wolves", "foxes"] } });
    expect(few.message).toMatch(/trains 3 token rows, but tells of 2 categories/);
    const wrong = await written({ facts: { ...data.facts, categories: "wolves" } });
    expect(wrong.message).toMatch(/oriflamme\.json: 'categories' must be a list of names/);
  });
});

describe("training several flags", () => {
  const config = { ...llama, vocabSize: 258, contextLength: 48 };
  const story = (who: string, category?: string): Example => ({
    prompt: `the ${who} `,
    response: "came and bit the hen",
    onset: 9,
    ...(category === undefined ? {} : { category }),
  });
  const training = {
    harmful: [story("wolf", "wolves"), story("fox", "foxes")],
    benign: [{ prompt: "the cow ", response: "came and fed the hen" }],
    steps: 60,
    lr: 0.02,
    warmup: 0,
    rank: 4,
    alpha: 8,
    harmfulBatch: 2,
    benignBatch: 1,
  };

  it("raises for each category its own", async () => {
    const model = await loudModel(backend, config, tokenizer);
    const flagged = await addRedFlag(model, { categories: ["wolves", "foxes"] });
    await trainRedFlag(flagged, training);
    const scorer = new FlagScorer(flagged);
    const limits = { maxResponse: 48, contextLength: 48, minOffset: 0 };
    for (const example of training.harmful) {
      const { max, category } = await scorer.score(toSequence(tokenizer, example, limits));
      expect(max).toBeGreaterThan(0.5);
      expect(category).toBe(example.category);
    }
    scorer.dispose();
  });

  it.each<[string[], Example, RegExp]>([
    [
      ["wolves"],
      story("fox", "foxes"),
      /^harmful example 1: no flag is for its category 'foxes'; name it in/,
    ],
    [["wolves"], story("fox"), /^harmful example 1: has no category; name it in categories, or 'other'/],
  ])("with %j refuses an example of another category", async (categories, odd, message) => {
    const flagged = await addRedFlag(await loudModel(backend, config, tokenizer), { categories });
    const run = trainRedFlag(flagged, { ...training, harmful: [story("wolf", "wolves"), odd] });
    await expect(run).rejects.toThrow(RangeError);
    await expect(run).rejects.toThrow(message);
  });
});
