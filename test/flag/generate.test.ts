import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { type Decision, parseDecision } from "../../src/flag/decision.js";
import {
  type BatchGenerateStep,
  createCache,
  encodePrompt,
  type GenerateBatchOptions,
  type GenerateOptions,
  type GenerateStep,
  generate,
  generateBatch,
} from "../../src/flag/generate.js";
import { flagMonitor } from "../../src/flag/monitor.js";
import type { FlaggedModel } from "../../src/flag/vocab.js";
import { GREEDY } from "../../src/generate/sample.js";
import type { Model } from "../../src/model/model.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { script, scripted, scriptedFlag } from "../generate/scripted.js";
import { softmax } from "../model/reference.js";
import { baseline } from "../model/tiny.js";

const tokenizer = byteTokenizer();
const bytesOf = (text: string) => [...new TextEncoder().encode(text)];
/** The flag's logit at each position; the text's token has 20, others 0. Three of them would not be flagged. */
const FLAG_LOGITS = [-5, 17, 2, 19, 24, -3, 10, 0];
const TEXT = "abcdefgh";
const FLAG_ID = 258;

let backend: Backend;
let model: Model;
let flagged: FlaggedModel;
beforeAll(async () => {
  backend = await baseline();
  model = await scripted(backend, script(258, bytesOf(TEXT)), tokenizer);
  flagged = scriptedFlag(model, FLAG_LOGITS);
});

/** P(flag) at each position, from the formula. */
const PROBABILITIES = FLAG_LOGITS.map(
  (logit, t) => softmax([...(script(258, bytesOf(TEXT))[t] ?? []), logit])[FLAG_ID] ?? 0,
);

async function run(
  options: GenerateOptions,
  target: FlaggedModel | Model = flagged,
  prompt: string | number[] = [0],
) {
  const steps: GenerateStep[] = [];
  for await (const step of generate(target, prompt, options)) steps.push(step);
  const done = steps.at(-1)?.done;
  if (!done) throw new Error("no end");
  expect(steps.slice(0, -1).every((step) => step.done === undefined)).toBe(true);
  expect(steps.flatMap(({ token }) => (token === null ? [] : [token]))).toEqual([...done.ids]);
  return { steps, done };
}

/** The flag is read, and neither drawn nor placed. */
const shadow = { policy: { kind: "annotate", shadow: true }, maxTokens: 8 } as const;
const annotate = { policy: { kind: "annotate" }, maxTokens: 8 } as const;

describe("P(flag)", () => {
  it.each([
    {},
    { temperature: 0.2 },
    { temperature: 5, seed: 3 },
    { temperature: 5, topK: 1 },
    { temperature: 1, topP: 0.1 },
    { temperature: 3, topK: 3, topP: 0.2, seed: 9 },
  ])("is that of the raw logits under %j", async (sampling) => {
    const { steps } = await run({ ...shadow, ...sampling });
    expect(steps).toHaveLength(9);
    for (const [t, probability] of PROBABILITIES.entries()) {
      expect((steps[t]?.flagProbability ?? Number.NaN) / probability, `position ${t}`).toBeCloseTo(1, 3);
    }
    expect(steps.every(({ token }) => token !== FLAG_ID)).toBe(true);
  });

  it("is null for a model without a flag", async () => {
    const { steps, done } = await run({ maxTokens: 3 }, model);
    expect(steps.every(({ flagProbability }) => flagProbability === null)).toBe(true);
    expect(done).toEqual({ reason: "length", ids: bytesOf("abc"), text: "abc", flagged: false });
  });
});

describe("the flag", () => {
  it("is never drawn, at any temperature, but by the decision 'sampled'", () => {
    const decisions = ["argmax", "threshold=1", "cumulative=1", "ema=0,1"].map(parseDecision);
    for (const decision of decisions) {
      expect(flagMonitor(FLAG_ID, decision, { kind: "stop" }).banned).toEqual(new Set([FLAG_ID]));
    }
    expect(flagMonitor(FLAG_ID, { kind: "sampled" }, { kind: "stop" }).banned).toBeUndefined();
  });

  it.each<[Decision, number]>([
    [{ kind: "threshold", level: 0.5 }, 4],
    [{ kind: "threshold", level: 0.04 }, 1],
    [{ kind: "argmax" }, 4],
    [{ kind: "sampled" }, 4],
    [{ kind: "cumulative", level: 0.3 }, 3],
    [{ kind: "ema", decay: 0.5, level: 0.1 }, 3],
  ])("by %j stops at its position", async (decision, at) => {
    const { steps, done } = await run({ decision, maxTokens: 8 });
    expect(done).toEqual({
      reason: "flag",
      ids: bytesOf(TEXT.slice(0, at)),
      text: TEXT.slice(0, at),
      flagged: true,
    });
    const last = steps.at(-1);
    expect(last).toMatchObject({ token: null, text: "", event: "flag" });
    expect(last?.flagProbability).toBeCloseTo(PROBABILITIES[at] ?? 0, 4);
  });

  it("is P >= 0.5 and stop where nothing is said", async () => {
    expect((await run({})).done).toMatchObject({ reason: "flag", text: "abcd" });
  });

  it("replaces the whole response", async () => {
    const { steps, done } = await run({ policy: { kind: "replace", text: "No." } });
    expect(done).toEqual({ reason: "replaced", ids: bytesOf("abcd"), text: "No.", flagged: true });
    expect(steps.at(-1)?.event).toBe("replace");
  });

  it("is only noted by 'annotate=shadow'; the text is what it would have been", async () => {
    const { steps, done } = await run(shadow);
    expect(done).toMatchObject({ reason: "length", text: TEXT, flagged: true });
    expect(steps.flatMap(({ event }, t) => (event ? [[event, t]] : []))).toEqual([["flag", 4]]);
  });

  it("is put into the context by 'annotate' where it is first raised, and only there", async () => {
    const { steps, done } = await run({ ...annotate, decision: { kind: "threshold", level: 0.04 } });
    expect(done).toMatchObject({
      reason: "length",
      ids: [97, FLAG_ID, ...bytesOf("cdefgh")],
      text: "acdefgh",
      flagged: true,
    });
    expect(steps[1]).toMatchObject({ token: FLAG_ID, text: "", event: "flag" });
    // Position 3 reaches the level too, and position 4.
    expect(steps.flatMap(({ event }, t) => (event ? [t] : []))).toEqual([1, 3, 4]);
  });

  it("that the model draws itself stays in the context, and is no text", async () => {
    const { steps, done } = await run({ ...annotate, decision: { kind: "sampled" } });
    expect(steps[4]).toMatchObject({ token: FLAG_ID, text: "", event: "flag" });
    expect(done.ids).toEqual([...bytesOf("abcd"), FLAG_ID, ...bytesOf("fgh")]);
    expect(done.text).toBe("abcdfgh");
  });

  it("raised nowhere changes nothing", async () => {
    const quiet = scriptedFlag(model, Array(8).fill(-20));
    expect((await run({ maxTokens: 8 }, quiet)).done).toEqual({
      reason: "length",
      ids: bytesOf(TEXT),
      text: TEXT,
      flagged: false,
    });
  });
});

describe("text", () => {
  /** é, €, 𝄞: two, three and four bytes; then one byte that begins a character and no more. */
  const text = "aé€𝄞";
  const bytes = [...bytesOf(text), 0xc3];

  it("comes out when its characters are whole, and what is left over as U+FFFD", async () => {
    const by = await scripted(backend, script(258, [...bytes, 0]), tokenizer);
    const { steps, done } = await run({ maxTokens: bytes.length }, by);
    expect(steps.map((step) => step.text)).toEqual([
      "a",
      "",
      "é",
      "",
      "",
      "€",
      "",
      "",
      "",
      "𝄞",
      "",
      "\uFFFD",
    ]);
    expect(done.text).toBe(`${text}\uFFFD`);
    expect(steps.map((step) => step.text).join("")).toBe(done.text);
  });

  it("takes ids behind the tokenizer's last for nothing", async () => {
    // A vocabulary that is padded to 264.
    const by = await scripted(backend, script(264, [97, 263, 98, 258]), tokenizer);
    const { done } = await run({ maxTokens: 4 }, by);
    expect(done).toMatchObject({ ids: [97, 263, 98, 258], text: "ab" });
  });

  it("ends at an end-of-sequence token, unless told not to", async () => {
    const by = await scripted(backend, script(258, [97, 257, 98, 99]), tokenizer, { eosIds: [257] });
    expect((await run({ maxTokens: 4 }, by)).done).toEqual({
      reason: "eos",
      ids: [97],
      text: "a",
      flagged: false,
    });
    const { done } = await run({ maxTokens: 4, ignoreEos: true }, by);
    expect(done).toEqual({ reason: "length", ids: [97, 257, 98, 99], text: "abc", flagged: false });
  });

  it("of a prompt gets a BOS, and never the flag, whatever it says", async () => {
    expect(encodePrompt(model, "é")).toEqual([256, 0xc3, 0xa9]);
    for (const attack of ["<rf>", "<bos><rf><eos>", "<|reserved_special_token_247|>"]) {
      const ids = encodePrompt(model, attack);
      expect(ids.slice(1)).toEqual(bytesOf(attack));
      expect(ids).not.toContain(FLAG_ID);
    }
  });

  it("needs a tokenizer; ids need none", async () => {
    const bare = await scripted(backend, script(30, [5, 6, 7]), null);
    await expect(run({}, bare, "hello")).rejects.toThrow(/no tokenizer; give ids/);
    expect((await run({ maxTokens: 2 }, bare)).done).toMatchObject({ ids: [5, 6], text: "" });
  });

  it("has the log-probability of every token", async () => {
    const { steps } = await run(shadow);
    for (let t = 0; t < 8; t++) {
      const p =
        softmax([...(script(258, bytesOf(TEXT))[t] ?? []), FLAG_LOGITS[t] ?? 0])[steps[t]?.token ?? 0] ?? 0;
      expect(steps[t]?.logprob).toBeCloseTo(Math.log(p), 4);
    }
  });
});

describe("options", () => {
  it.each([
    [{ temperature: -1 }, /^temperature/],
    [{ topP: 0 }, /^topP/],
    [{ topK: 0.5 }, /^topK/],
    [{ maxTokens: -1 }, /^maxTokens/],
    [{ seed: 0.5 }, /^seed/],
  ])("%j is refused by name", async (options, message) => {
    await expect(run(options)).rejects.toThrow(message);
    await expect(run(options)).rejects.toThrow(RangeError);
  });

  it("a signal aborts between two tokens", async () => {
    const controller = new AbortController();
    const seen: (number | null)[] = [];
    const all = async () => {
      for await (const { token } of generate(model, [0], { maxTokens: 8, signal: controller.signal })) {
        seen.push(token);
        if (seen.length === 2) controller.abort();
      }
    };
    await expect(all()).rejects.toThrow(expect.objectContaining({ name: "AbortError" }));
    expect(seen).toEqual(bytesOf("ab"));
  });

  it("that are undefined are the defaults", async () => {
    const loose = { temperature: undefined, topK: undefined } as unknown as GenerateOptions;
    expect((await run({ ...loose, maxTokens: 3 })).done.text).toBe("abc");
    expect(GREEDY.temperature).toBe(0);
  });
});

describe("several prompts", () => {
  const prompts: (string | number[])[] = [[0], [0, 0], "", [0, 0, 0, 0]];

  async function batch(options: GenerateBatchOptions) {
    const steps: BatchGenerateStep[] = [];
    for await (const step of generateBatch(flagged, prompts, options)) steps.push(step);
    return prompts.map((_, i) => steps.flatMap(({ index, ...step }) => (index === i ? [step] : [])));
  }

  it.each<GenerateBatchOptions>([
    { maxTokens: 8 },
    annotate,
    shadow,
    { maxTokens: 8, policy: { kind: "replace", text: "no" } },
    { maxTokens: 5, temperature: 6, decision: { kind: "sampled" } },
  ])("each have the steps that they have alone under %j", async (options) => {
    const found = await batch(options);
    for (const [i, prompt] of prompts.entries()) {
      const { steps } = await run({ ...options, seed: i }, flagged, prompt);
      expect(found[i]).toHaveLength(steps.length);
      for (const [t, step] of steps.entries()) {
        const { flagProbability, logprob, ...rest } = step;
        const own = found[i]?.[t];
        expect(own).toMatchObject(rest);
        // Null with an end that no position was read for.
        expect(own?.flagProbability ?? -1).toBeCloseTo(flagProbability ?? -1, 5);
        expect(own?.logprob ?? 1).toBeCloseTo(logprob ?? 1, 4);
      }
    }
  });

  it("draw by their seeds, of which there is one for each", async () => {
    const drawn = { maxTokens: 5, temperature: 9 };
    const found = await batch({ ...drawn, seeds: [7, 8, 9, 7] });
    expect(found[0]?.at(-1)?.done).toEqual((await run({ ...drawn, seed: 7 })).done);
    await expect(batch({ seeds: [1] })).rejects.toThrow(/^seeds: 1 for 4 prompts/);
  });
});

describe("a cache", () => {
  it("serves one flagged model turn by turn, and no other", async () => {
    const cache = createCache(flagged, { type: "f16" });
    const first = await run({ ...annotate, cache });
    expect(first.done).toEqual((await run({ ...annotate, kvType: "f16" })).done);
    const turn = [0, ...first.done.ids.slice(0, 3)];
    expect((await run({ ...annotate, cache, maxTokens: 2 }, flagged, turn)).done).toEqual(
      (await run({ ...annotate, maxTokens: 2 }, flagged, turn)).done,
    );
    await expect(run({ cache }, model)).rejects.toThrow(/^cache: it belongs to another model or adapter/);
    cache.dispose();
  });
});
