import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { type DecodeBatchOptions, decode, decodeBatch } from "../../src/generate/decode.js";
import type { Monitor, Observation, Verdict } from "../../src/generate/monitor.js";
import { argmaxOf, GREEDY } from "../../src/generate/sample.js";
import type { DecodeStep, Source } from "../../src/generate/sequence.js";
import type { ModelConfig } from "../../src/model/config.js";
import type { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { BACKENDS } from "../backends.js";
import { maxDifference } from "../golden.js";
import { baseline, gpt2, llama, logitsOf, loudModel, mistral, phi3 } from "../model/tiny.js";

const GO_ON: Verdict = { action: "continue" };
const PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3], [8], [2, 7, 1, 8]];

type RunOptions = Partial<DecodeBatchOptions>;
const options = (extra: RunOptions = {}): DecodeBatchOptions => ({
  sampling: GREEDY,
  maxTokens: 9,
  eosIds: [],
  ...extra,
});

/** The steps of each sequence of a batch. */
async function sideBySide(
  model: Model,
  sources: readonly Source[],
  extra?: RunOptions,
): Promise<DecodeStep[][]> {
  const steps: DecodeStep[][] = sources.map(() => []);
  for await (const { index, ...step } of decodeBatch(model, sources, options(extra)))
    steps[index]?.push(step);
  return steps;
}

/** The same, each by itself. */
async function alone(model: Model, sources: readonly Source[], extra?: RunOptions): Promise<DecodeStep[][]> {
  return Promise.all(
    sources.map(async ({ prompt, ...source }) => {
      const steps: DecodeStep[] = [];
      for await (const step of decode(model, prompt, { ...options(extra), ...source })) steps.push(step);
      return steps;
    }),
  );
}

/** phi3's position, with another length at which its factors change. */
function longRope(originalContextLength: number): ModelConfig["position"] {
  const { position } = phi3;
  if (position.kind !== "rope" || position.scaling.kind !== "longrope")
    throw new Error("phi3 has no LongRoPE");
  return { ...position, scaling: { ...position.scaling, originalContextLength } };
}

function logSumExp(logits: Float32Array): number {
  return Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
}

const greedy = (): Source[] => PROMPTS.map((prompt) => ({ prompt, random: new Random(0) }));

function expectSame(found: readonly DecodeStep[][], expected: readonly DecodeStep[][]): void {
  const bare = (steps: readonly DecodeStep[]) =>
    steps.map((step) => (step.kind === "token" ? { ...step, logprob: 0 } : step));
  expect(found.map(bare)).toEqual(expected.map(bare));
  const logprobs = (all: readonly DecodeStep[][]) =>
    all.flat().flatMap((step) => (step.kind === "token" ? [step.logprob] : []));
  expect(maxDifference(logprobs(found), logprobs(expected))).toBeLessThan(1e-4);
}

describe.each(BACKENDS)("several prompts at once on $name", ({ name, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(() => backend.dispose());

  it.each(
    name === "webgpu"
      ? [["llama", llama] as const]
      : [["llama", llama] as const, ["mistral", mistral] as const, ["gpt2", gpt2] as const],
  )("%s: give each the tokens that it has alone", async (_, config) => {
    const model = await loudModel(backend, config);
    const { used } = backend.memory();
    expectSame(await sideBySide(model, greedy()), await alone(model, greedy()));
    expect(backend.memory().used).toBe(used);
    model.dispose();
  });
});

describe("a batch", () => {
  let backend: Backend;
  let model: Model;
  beforeAll(async () => {
    backend = await baseline();
    model = await loudModel(backend, llama);
  });

  it("of none has no steps", async () => {
    expect(await sideBySide(model, [])).toEqual([]);
  });

  it("ends each sequence at its own end", async () => {
    const free = await alone(model, greedy());
    const third = free[0]?.[2];
    const eosIds = third?.kind === "token" ? [third.id] : [];
    const found = await sideBySide(model, greedy(), { eosIds });
    expectSame(found, await alone(model, greedy(), { eosIds }));
    const lengths = found.map((steps) => steps.length);
    expect(new Set(lengths).size).toBeGreaterThan(1);
  });

  it("ends at the context where one has no more room", async () => {
    const sources = [...greedy(), { prompt: Array(22).fill(7), random: new Random(0) }];
    const found = await sideBySide(model, sources, { maxTokens: 12 });
    expectSame(found, await alone(model, sources, { maxTokens: 12 }));
    expect(found.at(-1)?.at(-1)).toMatchObject({ kind: "end", reason: "context" });
  });

  it("pads none past the context, where another has more to read", async () => {
    const monitor: Monitor = {
      observe: ({ generated }) => ({
        verdict: generated.length === 1 ? { action: "append", ids: [7, 8, 9, 7, 8] } : GO_ON,
        notes: {},
      }),
    };
    const sources = (): Source[] => [
      { prompt: Array(22).fill(7), random: new Random(0) },
      { prompt: [3], random: new Random(0), monitor },
    ];
    const found = await sideBySide(model, sources(), { maxTokens: 12 });
    expectSame(found, await alone(model, sources(), { maxTokens: 12 }));
  });

  it("draws each by its own random numbers", async () => {
    const sampling = { temperature: 1.5, topK: 0, topP: 1 };
    const drawn = (): Source[] => [1, 2, 3].map((seed) => ({ prompt: [3, 1, 4], random: new Random(seed) }));
    const found = await sideBySide(model, drawn(), { sampling });
    expectSame(found, await alone(model, drawn(), { sampling }));
    expect(found[0]).not.toEqual(found[1]);
  });

  it("obeys each one's monitor: replace, append, roll back, ban", async () => {
    const observed = (rule: (seen: Observation) => Verdict, extra: Partial<Monitor> = {}): Monitor => ({
      ...extra,
      observe: (seen) => ({ verdict: rule(seen), notes: { logits: seen.logits.length } }),
    });
    const sources = (): Source[] => {
      let rolled = 0;
      const monitors = [
        observed(({ generated }) => (generated.length === 2 ? { action: "replace", text: "no" } : GO_ON)),
        observed(({ generated }) =>
          generated.length === 1 ? { action: "append", ids: [7, 8, 9, 7] } : GO_ON,
        ),
        observed(
          ({ generated }) =>
            generated.length === 5 && rolled++ === 0 ? { action: "rollback", length: 1 } : GO_ON,
          { watches: [3, 5] },
        ),
        observed(() => GO_ON, { watches: [], banned: new Set([0, 1, 2, 3, 4, 5, 6, 7, 8]) }),
      ];
      return PROMPTS.map((prompt, i) => ({ prompt, random: new Random(0), monitor: monitors[i] }));
    };
    const found = await sideBySide(model, sources());
    expectSame(found, await alone(model, sources()));
    expect(found[0]?.at(-1)).toMatchObject({ reason: "replaced", text: "no" });
    expect(found[2]?.some(({ kind }) => kind === "rollback")).toBe(true);
    expect(found[3]?.every((step) => step.kind !== "token" || step.id > 8)).toBe(true);
  });

  it("takes prompts in pieces where there are too many ids for a pass", async () => {
    const wide = await loudModel(backend, { ...llama, contextLength: 1500 });
    const prompt = (n: number) => Array.from({ length: n }, (_, i) => (i * i + n) % 19);
    const sources = [1100, 5, 1030].map((n) => ({ prompt: prompt(n), random: new Random(0) }));
    expectSame(
      await sideBySide(wide, sources, { maxTokens: 3 }),
      await alone(wide, sources, { maxTokens: 3 }),
    );
    wide.dispose();
  });

  it("of a model that rotates by length gives each what it has alone, over the change", async () => {
    const by = await loudModel(backend, phi3);
    expectSame(await sideBySide(by, greedy()), await alone(by, greedy()));
    by.dispose();
  });

  it("tells every piece of a prompt how long it is to be", async () => {
    const position = longRope(2060);
    const by = await loudModel(backend, { ...phi3, contextLength: 3000, position });
    const prompt = Array.from({ length: 2070 }, (_, i) => (i * i) % 19);
    const [steps = []] = await alone(by, [{ prompt, random: new Random(0) }], { maxTokens: 1 });
    const logits = (await logitsOf(by, prompt)).slice(-phi3.vocabSize);
    expect(steps[0]).toMatchObject({ kind: "token", id: argmaxOf(logits) });
    const expected = Math.max(...logits) - logSumExp(logits);
    expect(steps[0]?.kind === "token" ? steps[0].logprob : Number.NaN).toBeCloseTo(expected, 4);
    by.dispose();
  });

  it("is given back when its consumer leaves", async () => {
    const { used } = backend.memory();
    for await (const _ of decodeBatch(model, greedy(), options())) break;
    expect(backend.memory().used).toBe(used);
  });

  it("refuses a prompt of none, whichever it is", async () => {
    const sources = [...greedy(), { prompt: [], random: new Random(0) }];
    await expect(sideBySide(model, sources)).rejects.toThrow(/^prompt: there must be at least one token/);
  });
});
