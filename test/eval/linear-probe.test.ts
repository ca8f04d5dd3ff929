import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { trainBaselines } from "../../src/eval/baselines.js";
import { type Conversation, givenConversations } from "../../src/eval/conversations.js";
import { trainLinearProbe } from "../../src/eval/linear-probe.js";
import type { Example } from "../../src/formats/jsonl.js";
import { forward } from "../../src/model/forward.js";
import type { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { baseline, llama, loudModel } from "../model/tiny.js";

let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await baseline();
  model = await loudModel(backend, { ...llama, vocabSize: 258, contextLength: 48 }, byteTokenizer());
});

/** Harmless letters, and in harmful texts an x that comes after some of them. */
function examples(count: number, seed: number, isHarmful: boolean): Example[] {
  const random = new Random(seed);
  const letters = (length: number) => Array.from({ length }, () => "abcd"[random.below(4)]).join("");
  return Array.from({ length: count }, () => {
    const before = letters(2 + random.below(5));
    if (!isHarmful) return { prompt: "say ", response: before + letters(4) };
    return { prompt: "say ", response: `${before}x`, onset: before.length + 1 };
  });
}
const read = (list: readonly Example[]) => givenConversations(model, { path: "f", examples: list }, 40);

describe("a linear probe", () => {
  it("finds in the hidden states what the onset marks, where it is", async () => {
    const data = { harmful: read(examples(60, 1, true)), benign: read(examples(60, 2, false)) };
    let calls = 0;
    const probe = await trainLinearProbe(model, data, () => calls++);
    expect(calls).toBe(60 + 2 * 60);
    const harmful = read(examples(20, 3, true));
    const benign = read(examples(20, 4, false));
    const [bad, good] = [await probe.read(harmful), await probe.read(benign)];
    expect(Math.min(...bad.map(({ score }) => score))).toBeGreaterThan(
      Math.max(...good.map(({ score }) => score)),
    );
    // After the x, which is the last token.
    expect(bad.map(({ first }) => first)).toEqual(harmful.map(({ sequence }) => sequence.response.length));
    expect(good.every(({ flagged, first }) => !flagged && first === null)).toBe(true);
    // Of 60 benign 1 % is none: the threshold lies above the highest.
    const own = await probe.read(data.benign);
    expect(own.filter(({ flagged }) => flagged)).toEqual([]);
    expect(probe.rule).toBe(`log-odds >= ${Math.max(...own.map(({ score }) => score)).toFixed(3)}`);
  });

  it("is fitted: both classes are as far from certain on the whole", async () => {
    // One position each, so that scores are log-odds of what was fitted.
    const asked = (list: readonly Conversation[]) =>
      list.map((each) => ({ ...each, onset: null, sequence: { ...each.sequence, response: [] } }));
    const named = (names: readonly string[]) =>
      asked(read(names.map((prompt) => ({ prompt, response: "q" }))));
    const data = {
      harmful: named(["a wolf", "the fox bit", "wolves", "one fox", "foxes eat", "the wolf"]),
      benign: named(["a cow", "the hen sat", "cows", "one hen"]),
    };
    const probe = await trainLinearProbe(model, data);
    const doubt = async (list: readonly Conversation[], sign: 1 | -1) => {
      const doubts = (await probe.read(list)).map(({ score }) => 1 / (1 + Math.exp(sign * score)));
      return doubts.reduce((sum, x) => sum + x, 0) / doubts.length;
    };
    // The slope in the bias, which no penalty holds, is 0 at the minimum; the fit ends at 1e-6.
    expect(await doubt(data.harmful, 1)).toBeCloseTo(await doubt(data.benign, -1), 4);
  });

  it("is linear in the model's last hidden states", async () => {
    const data = { harmful: read(examples(30, 5, true)), benign: read(examples(30, 6, false)) };
    const probe = await trainLinearProbe(model, data);
    // One more than the width of them, so that 17 scores of single positions give all weights away.
    const alone = Array.from({ length: 40 }, (_, i): Conversation => {
      const [conversation] = read([
        { prompt: `say ${"abcdx".repeat(3).slice(0, i % 13)}${i}`, response: "q" },
      ]);
      if (!conversation) throw new Error("no conversation");
      return { ...conversation, sequence: { ...conversation.sequence, response: [] } };
    });
    const scores = (await probe.read(alone)).map(({ score }) => score);
    const states = await Promise.all(alone.map(({ sequence }) => lastState(sequence.prompt)));
    const weights = leastSquares(
      states.map((state) => [...state, 1]),
      scores,
    );
    states.forEach((state, i) => {
      const linear = [...state, 1].reduce((sum, x, j) => sum + x * (weights[j] ?? 0), 0);
      expect(linear).toBeCloseTo(scores[i] ?? Number.NaN, 2);
    });
  });
});

it("baselines say which file has nothing to train on", async () => {
  const files = {
    harmful: { path: "h.jsonl", examples: examples(3, 1, true) },
    benign: { path: "b.jsonl", examples: [{ prompt: "unanswered" }] },
  };
  await expect(trainBaselines(model, files, 40)).rejects.toThrow(
    "b.jsonl: none of its 1 examples has a response that fits",
  );
  const both = { ...files, benign: { path: "b.jsonl", examples: examples(3, 2, false) } };
  expect((await trainBaselines(model, both, 40)).map(({ name }) => name)).toEqual([
    "linear probe",
    "n-grams",
  ]);
});

async function lastState(ids: readonly number[]): Promise<number[]> {
  const arena = new Arena(backend);
  const values = await forward(new Tape(arena, false), model, ids).read();
  arena.dispose();
  return [...values.slice(-llama.hiddenSize)];
}

/** Solves the normal equations by elimination, with a trace of a ridge for what the states do not determine. */
function leastSquares(rows: readonly (readonly number[])[], targets: readonly number[]): number[] {
  const n = rows[0]?.length ?? 0;
  const at = (i: number, j: number) =>
    rows.reduce((sum, row) => sum + (row[i] ?? 0) * (row[j] ?? 0), i === j ? 1e-9 : 0);
  const system = Array.from({ length: n }, (_, i) => [
    ...Array.from({ length: n }, (_, j) => at(i, j)),
    rows.reduce((sum, row, k) => sum + (row[i] ?? 0) * (targets[k] ?? 0), 0),
  ]);
  for (let i = 0; i < n; i++) {
    const pivot = system
      .slice(i)
      .reduce((best, row) => (Math.abs(row[i] ?? 0) > Math.abs(best[i] ?? 0) ? row : best));
    system.splice(system.indexOf(pivot), 1, system[i] ?? []);
    system[i] = pivot.map((x) => x / (pivot[i] ?? 1));
    for (let k = 0; k < n; k++) {
      if (k === i) continue;
      const factor = system[k]?.[i] ?? 0;
      system[k] = (system[k] ?? []).map((x, j) => x - factor * (system[i]?.[j] ?? 0));
    }
  }
  return system.map((row) => row[n] ?? 0);
}
