import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { completeSequences } from "../../src/flag/complete.js";
import type { FlagSequence } from "../../src/flag/data.js";
import { type RedFlagTraining, trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag } from "../../src/flag/vocab.js";
import { Random } from "../../src/random.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { script, scripted, scriptedFlag } from "../generate/scripted.js";
import { referenceLogits, referenceOf, softmax } from "../model/reference.js";
import { baseline, llama, loudModel } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const options = (seed: number, maxTokens = 5) => ({ maxTokens, random: new Random(seed) });
const open = (prompt: readonly number[]): FlagSequence => ({ prompt, response: [], onset: 0, index: 7 });

describe("a missing response", () => {
  it("is drawn from the reference at temperature 1, whatever training has done", async () => {
    const model = await loudModel(backend, llama);
    const flagged = await addRedFlag(model);
    const adapter = flagged.attach({ rank: 2, alpha: 4, targets: ["layers.0.q"] }, 1);
    const random = new Random(2);
    for (const [, tensor] of adapter.parameters.entries())
      tensor.write((await tensor.read()).map(() => random.normal()));
    const reference = await referenceOf(model, flagged.reference);
    const next = softmax(referenceLogits(reference, [1, 2]).at(-1) ?? []);
    // The flag is never drawn: what is left is as likely as before, of 19 tokens.
    const left = next.slice(0, 19).map((p) => p / (1 - (next[19] ?? 0)));
    const draws = 400;
    const all = Array.from({ length: draws }, () => open([1, 2]));
    const { sequences, completed } = await completeSequences(flagged, all, options(3, 1));
    expect(completed).toBe(draws);
    const counts = new Array<number>(20).fill(0);
    for (const { response } of sequences) {
      expect(response).toHaveLength(1);
      counts[response[0] ?? 0] = (counts[response[0] ?? 0] ?? 0) + 1;
    }
    expect(counts[19]).toBe(0);
    // Five standard deviations of each count.
    for (const [id, p] of left.entries()) {
      const deviation = Math.sqrt(draws * p * (1 - p)) + 1;
      expect(Math.abs((counts[id] ?? 0) - draws * p), `token ${id}`).toBeLessThan(5 * deviation);
    }
  });

  it("never holds a flag, though it were all but certain", async () => {
    const flagged = scriptedFlag(await scripted(backend, script(258, [97, 98, 99, 100])), [40, 40, 40, 40]);
    const { sequences } = await completeSequences(flagged, [open([0])], options(1));
    expect(sequences[0]?.response).toEqual([97, 98]);
  });

  it("ends before the model's end, and leaves the context a place for the flag", async () => {
    const model = await scripted(backend, script(258, [97, 98, 257, 100, 101, 102], 60), null, {
      eosIds: [257],
    });
    const flagged = scriptedFlag(model, [0, 0, 0, 0, 0, 0]);
    const given = [open([0]), open([0, 0, 0]), open([0, 0, 0, 0, 0]), open([])];
    const seen: [number, number][] = [];
    const { sequences, completed } = await completeSequences(flagged, given, {
      ...options(1),
      onResponse: (...progress) => seen.push(progress),
    });
    expect(sequences.map(({ response }) => response)).toEqual([[97, 98], [], [], []]);
    expect(completed).toBe(1);
    expect(seen).toEqual([
      [1, 3],
      [2, 3],
      [3, 3],
    ]);
    expect(sequences[0]).toMatchObject({ prompt: [0], onset: 0, index: 7 });
  });

  it("leaves the others alone, and all where nothing is to be written", async () => {
    const flagged = await addRedFlag(await loudModel(backend, llama));
    const given = [{ prompt: [1], response: [2, 3], onset: 1 }, open([4])];
    const { sequences, completed } = await completeSequences(flagged, given, options(1));
    expect(sequences[0]).toBe(given[0]);
    expect([sequences[1]?.response.length, completed]).toEqual([5, 1]);
    expect(await completeSequences(flagged, given, options(1, 0))).toEqual({
      sequences: given,
      completed: 0,
    });
    expect((await completeSequences(flagged, given, options(1))).sequences).toEqual(sequences);
    expect((await completeSequences(flagged, given, options(2))).sequences).not.toEqual(sequences);
    const reason = new Error("enough");
    const stopped = completeSequences(flagged, given, { ...options(1), signal: AbortSignal.abort(reason) });
    await expect(stopped).rejects.toBe(reason);
  });
});

it("a run uses prompts alone where it may complete them, and counts them", async () => {
  const config = { ...llama, vocabSize: 258, contextLength: 48 };
  const training: RedFlagTraining = {
    harmful: [{ prompt: "the wolf ", response: "came and bit the hen", onset: 9 }, { prompt: "the fox " }],
    benign: [{ prompt: "the cow " }, { messages: [{ role: "user", content: "hen?" }] }],
    ...{ steps: 1, rank: 2, harmfulBatch: 2, benignBatch: 2 },
  };
  const run = async (changes: Partial<RedFlagTraining>) => {
    const flagged = await addRedFlag(await loudModel(backend, config, byteTokenizer()));
    return trainRedFlag(flagged, { ...training, ...changes });
  };
  const { leftOut, completed, steps } = await run({ complete: 6 });
  expect(leftOut).toEqual({ harmful: 0, benign: 0 });
  expect(completed).toEqual({ harmful: 1, benign: 2 });
  expect((await run({ complete: 6 })).steps[0]?.loss).toBe(steps[0]?.loss);
  // Prompts of 9 and 22 tokens, BOS and all, and six more of each, of which the last is only predicted.
  const benignOnly = await run({ complete: 6, harmfulBatch: 0 });
  expect(benignOnly.steps[0]?.tokens).toBe(9 + 6 - 1 + (1 + "user: hen?\nassistant:".length) + 6 - 1);
  await expect(run({})).rejects.toThrow(/^benign: none of the 2 examples has a prompt, a response/);
  await expect(run({ complete: -1 })).rejects.toThrow(/^complete must be an integer from 0/);
});
