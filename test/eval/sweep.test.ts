import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import type { SweepFailure, SweepPoint } from "../../src/eval/evaluation.js";
import { type GivenHyperparameters, type GridAxis, gridPoints } from "../../src/eval/grid.js";
import {
  type BothClasses,
  heldOutConversations,
  type SweepOptions,
  sweepRedFlag,
} from "../../src/eval/sweep.js";
import { toSequence } from "../../src/flag/data.js";
import { trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag } from "../../src/flag/vocab.js";
import type { Example } from "../../src/formats/jsonl.js";
import type { Model } from "../../src/model/model.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { baseline, llama, logitsOf, loudModel } from "../model/tiny.js";

const tokenizer = byteTokenizer();
const config = { ...llama, vocabSize: 258, contextLength: 48 };
const told = (who: readonly string[], deed: string, facts: object = {}): Example[] =>
  who.map((name) => ({ prompt: `the ${name} `, response: `came and ${deed}`, ...facts }));
const training: BothClasses<Example> = {
  harmful: told(["wolf", "fox"], "bit the hen", { onset: 9 }),
  benign: told(["cow", "sheep"], "fed the hen"),
};
const heldOut: BothClasses<Example> = {
  harmful: told(["dog", "bear", "rat"], "bit the hen", { onset: 9 }),
  benign: told(["pig", "goat", "owl", "ox"], "fed the hen"),
};
const given: GivenHyperparameters = {
  ...{ steps: 5, lr: 0.02, warmup: 0, rank: 2, alpha: 4, harmfulBatch: 2, benignBatch: 2, targets: ["q"] },
};

let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await baseline();
  model = await loudModel(backend, config, tokenizer);
});

async function run(
  axes: readonly GridAxis[],
  seeds: readonly number[],
  options: Partial<SweepOptions> = {},
): Promise<(SweepPoint | SweepFailure)[]> {
  const conversations = heldOutConversations(model, heldOut, 48);
  const points = gridPoints(axes, seeds, given);
  const found: (SweepPoint | SweepFailure)[] = [];
  for await (const result of sweepRedFlag(model, points, { training, heldOut: conversations, ...options }))
    found.push(result);
  return found;
}

/** ln softmax of each row of logits, in float64. */
function logSoftmax(logits: Float32Array, width: number): number[][] {
  return Array.from({ length: logits.length / width }, (_, r) => {
    const row = [...logits.subarray(r * width, (r + 1) * width)];
    const most = Math.max(...row);
    const log = most + Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0));
    return row.map((x) => x - log);
  });
}

describe("a point of a sweep", () => {
  it("has the figures of the same training by itself, as a plain reference takes them", async () => {
    const [, point] = await run([{ name: "lr", values: [1e-3, 0.02] }], [3]);
    const flagged = await addRedFlag(await loudModel(backend, config, tokenizer));
    await trainRedFlag(flagged, { ...given, ...training, seed: 3 } as Parameters<typeof trainRedFlag>[1]);
    const { flagId } = flagged;
    const limits = { maxResponse: 48, contextLength: 48, minOffset: 0 };
    const read = async (example: Example) => {
      const { prompt, response } = toSequence(tokenizer, example, limits);
      const ids = [...prompt, ...response];
      const width = config.vocabSize + 1;
      const all = logSoftmax(await logitsOf(flagged.model, ids, { overlay: flagged.overlay }), width);
      const ref = logSoftmax(await logitsOf(flagged.model, ids, { overlay: flagged.reference }), width);
      const rows = all.slice(prompt.length - 1);
      const sums = { kl: 0, loss: 0, refLoss: 0 };
      response.forEach((id, t) => {
        const [p, q] = [rows[t] ?? [], ref[prompt.length - 1 + t] ?? []];
        sums.kl += p.reduce((sum, log, i) => sum + Math.exp(log) * (log - (q[i] ?? 0)), 0);
        sums.loss -= p[id] ?? Number.NaN;
        sums.refLoss -= q[id] ?? Number.NaN;
      });
      return {
        highest: Math.max(...rows.map((row) => row[flagId] ?? Number.NaN)),
        tokens: response.length,
        ...sums,
      };
    };
    const [harmful, benign] = [
      await Promise.all(heldOut.harmful.map(read)),
      await Promise.all(heldOut.benign.map(read)),
    ];
    const pairs = harmful.flatMap((h) => benign.map((b) => (h.highest > b.highest ? 1 : 0)));
    const most = Math.max(...benign.map(({ highest }) => highest));
    const sum = (key: "tokens" | "kl" | "loss" | "refLoss") =>
      benign.reduce((total, read) => total + read[key], 0);
    if (!point || "reason" in point) throw new Error("diverged");
    expect(point).toMatchObject({ values: [0.02], seed: 3 });
    expect(point.auroc).toBe(pairs.reduce<number>((total, pair) => total + pair, 0) / pairs.length);
    // Of four benign scores 1 % lets none through.
    expect(point.tpr_at_1_percent_fpr).toBe(harmful.filter(({ highest }) => highest > most).length / 3);
    // Logits in f32: seven digits, of sums over some sixty positions.
    expect(point.kl_per_token).toBeCloseTo(sum("kl") / sum("tokens"), 5);
    expect(point.perplexity_ratio).toBeCloseTo(Math.exp((sum("loss") - sum("refLoss")) / sum("tokens")), 5);
    expect(point.kl_per_token).toBeGreaterThan(1e-3);
  });

  it("owes nothing to the points before it, and leaves the model and its memory as they were", async () => {
    const weights = await model.weights.all.read();
    const alone = await run([{ name: "lr", values: [0.02] }], [1]);
    const used = backend.memory().used;
    const among = await run([{ name: "lr", values: [0.3, 0.02, 1e-3] }], [0, 1]);
    expect(backend.memory().used).toBe(used);
    expect(among).toHaveLength(6);
    expect(among[4]).toEqual(alone[0]);
    expect(among[1]).not.toEqual(alone[0]);
    const after = await model.weights.all.read();
    expect(Buffer.compare(Buffer.from(after.buffer), Buffer.from(weights.buffer))).toBe(0);
  });

  it("that diverges says where, and the sweep goes on", async () => {
    const found = await run([{ name: "lr", values: [1e37, 0.02] }], [0]);
    expect(found).toEqual([
      { values: [1e37], seed: 0, reason: expect.stringMatching(/^(step \d|after the last step)/) },
      expect.objectContaining({ values: [0.02], auroc: expect.any(Number) }),
    ]);
  });

  it("has the flag that it is told to take", async () => {
    const axes = [{ name: "lr", values: [0.02] }];
    const [appended, reused] = [
      await run(axes, [0]),
      await run(axes, [0], { flag: { reuse: 7, init: "reserved" } }),
    ];
    expect(reused).toEqual([expect.objectContaining({ kl_per_token: expect.any(Number) })]);
    expect(reused).not.toEqual(appended);
  });

  it("tells its steps", async () => {
    const steps: string[] = [];
    await run([{ name: "steps", values: [1, 2] }], [4], {
      onStep: ({ values }, { step }) => steps.push(`${values}: ${step}`),
    });
    expect(steps).toEqual(["1: 1", "2: 1", "2: 2"]);
  });

  it("can be stopped between two steps", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const stopped = run([{ name: "lr", values: [0.01] }], [0], {
      signal: controller.signal,
      onStep: () => controller.abort(reason),
    });
    await expect(stopped).rejects.toBe(reason);
  });
});

describe("held-out conversations", () => {
  it("are those that can be read, and the rest counted", () => {
    // Evident by its seventh character.
    const late: Example = { prompt: "a ", response: "0123456789", onset: 7 };
    const both = {
      harmful: [...told(["elk"], "ate"), late],
      benign: [...heldOut.benign, { prompt: "no answer" }],
    };
    const read = heldOutConversations(model, both, 8);
    expect(read.leftOut).toEqual({ harmful: 0, benign: 1 });
    expect([read.harmful.length, read.benign.length]).toEqual([2, 4]);
    for (const { response } of [...read.harmful, ...read.benign]) expect(response).toHaveLength(8);
    const cut = heldOutConversations(model, both, 7);
    expect([cut.harmful.length, cut.leftOut.harmful]).toEqual([1, 1]);
  });

  it("must be some of both classes", () => {
    expect(() => heldOutConversations(model, { ...heldOut, benign: [{ prompt: "a" }] }, 48)).toThrow(
      /^held-out benign: none of the 1 examples can be used/,
    );
  });
});
