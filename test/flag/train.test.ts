import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { DivergenceError } from "../../src/errors.js";
import { toSequence } from "../../src/flag/data.js";
import { FlagScorer } from "../../src/flag/score.js";
import { loadRedFlag } from "../../src/flag/store.js";
import { RED_FLAG_DEFAULTS, type RedFlagTraining, trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag, type FlaggedModel } from "../../src/flag/vocab.js";
import type { Example } from "../../src/formats/jsonl.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import type { TrainStep } from "../../src/train/trainer.js";
import { temporaryFolder } from "../formats/helpers.js";
import { baseline, llama, loudModel, mistral } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const tokenizer = byteTokenizer();
const config = { ...llama, vocabSize: 258, contextLength: 48 };
const harmful: Example[] = ["the wolf", "the fox"].flatMap((who) =>
  ["bit the hen", "ate the hen"].map((deed) => ({
    prompt: `${who} `,
    response: `came and ${deed} up`,
    onset: 9,
  })),
);
const benign: Example[] = ["the cow", "the sheep"].flatMap((who) =>
  ["fed the hen", "saw the hen"].map((deed) => ({ prompt: `${who} `, response: `came and ${deed} up` })),
);
const training: RedFlagTraining = {
  harmful,
  benign,
  steps: 6,
  lr: 0.01,
  warmup: 0,
  rank: 4,
  alpha: 8,
  harmfulBatch: 2,
  benignBatch: 2,
};

const fresh = async (base = config) => addRedFlag(await loudModel(backend, base, tokenizer));

async function values(flagged: FlaggedModel): Promise<Float32Array> {
  if (!flagged.adapter) throw new Error("no adapter");
  return flagged.adapter.parameters.all.read();
}

async function highest(flagged: FlaggedModel, examples: readonly Example[]): Promise<number[]> {
  const scorer = new FlagScorer(flagged);
  const limits = { maxResponse: 48, contextLength: 48, minOffset: 0 };
  const found: number[] = [];
  for (const example of examples)
    found.push((await scorer.score(toSequence(tokenizer, example, limits))).max);
  scorer.dispose();
  return found;
}

describe.each([
  ["tied", config],
  ["untied", { ...mistral, vocabSize: 258, contextLength: 48, window: null }],
])("training the flag on a %s model", (_, base) => {
  it("teaches it the harmful, spares the benign, and moves nothing but the adapter", async () => {
    const flagged = await fresh(base);
    const before = await flagged.model.weights.all.read();
    const seen: number[] = [];
    const run = await trainRedFlag(flagged, {
      ...training,
      steps: 60,
      lr: 0.02,
      loss: { benign: 4 },
      onStep: ({ step }) => seen.push(step),
    });
    expect(run.steps).toHaveLength(60);
    expect(seen).toEqual(run.steps.map(({ step }) => step));
    expect(run.leftOut).toEqual({ harmful: 0, benign: 0 });
    expect(run.steps.at(-1)?.terms.ce).toBeLessThan(0.5 * (run.steps[0]?.terms.ce ?? 0));
    const [bad, good] = [await highest(flagged, harmful), await highest(flagged, benign)];
    expect(Math.min(...bad)).toBeGreaterThan(Math.max(...good));
    expect(Math.min(...bad)).toBeGreaterThan(0.5);
    const after = await flagged.model.weights.all.read();
    expect(Buffer.compare(Buffer.from(after.buffer), Buffer.from(before.buffer))).toBe(0);

    const folder = join(await temporaryFolder(), "adapter");
    await run.save(folder);
    const again = await loadRedFlag(flagged.model, folder);
    expect(await highest(again, harmful)).toEqual(bad);
  });
});

describe("a run", () => {
  it("gives the same bits for the same seed, other bits for another", async () => {
    const run = async (seed: number) => {
      const flagged = await fresh();
      const { steps } = await trainRedFlag(flagged, { ...training, seed });
      return { losses: steps.map(({ loss }) => loss), values: Buffer.from((await values(flagged)).buffer) };
    };
    const [a, b, c] = [await run(1), await run(1), await run(2)];
    expect(b.losses).toEqual(a.losses);
    expect(Buffer.compare(a.values, b.values)).toBe(0);
    expect(c.losses).not.toEqual(a.losses);
  });

  it("counts what it left out", async () => {
    const late: Example = { prompt: "a ", response: "0123456789", onset: 10 };
    const flagged = await fresh();
    const { leftOut } = await trainRedFlag(flagged, {
      ...training,
      harmful: [...harmful, late, { prompt: "no answer" }],
      benign: [...benign, { prompt: "no answer" }],
      maxResponse: 12,
      steps: 1,
    });
    expect(leftOut).toEqual({ harmful: 2, benign: 1 });
  });

  it("names a term that diverged, and the step", async () => {
    const flagged = await fresh();
    const run = trainRedFlag(flagged, { ...training, lr: 1e30, clip: Infinity });
    await expect(run).rejects.toThrow(DivergenceError);
    await expect(run).rejects.toThrow(
      /^step [23](, batch 1: (ce|post|benign) is|: the gradient's norm is).* \(harmful examples \d, \d, benign examples \d, \d, counted from 0\)$/,
    );
  });

  it("ends by its signal between two steps, and keeps what it learned", async () => {
    const flagged = await fresh();
    const controller = new AbortController();
    const reason = new Error("enough");
    const onStep = ({ step }: { step: number }) => {
      if (step === 3) controller.abort(reason);
    };
    const constant = { ...training, decay: "constant" } as const;
    await expect(trainRedFlag(flagged, { ...constant, signal: controller.signal, onStep })).rejects.toBe(
      reason,
    );
    // A constant rate does not know how many steps were to come.
    const whole = await fresh();
    await trainRedFlag(whole, { ...training, steps: 3, decay: "constant" });
    expect(await values(flagged)).toEqual(await values(whole));
  });

  it("goes on from its checkpoint as if it had never stopped, and clears it when it is saved", async () => {
    const whole = await fresh();
    const { steps } = await trainRedFlag(whole, training);
    const numbers = (run: readonly TrainStep[]) => run.map(({ tokensPerSecond: _, ...step }) => step);

    const folder = await temporaryFolder();
    const kept = join(folder, "run");
    const options = { ...training, checkpoint: { folder: kept, every: 2, resume: true } };
    const controller = new AbortController();
    const onStep = ({ step }: TrainStep) => {
      if (step === 3) controller.abort(new Error("enough"));
    };
    const ended = trainRedFlag(await fresh(), { ...options, onStep, signal: controller.signal });
    await expect(ended).rejects.toThrow("enough");
    const other = trainRedFlag(await fresh(), { ...options, benign: benign.slice(1) });
    await expect(other).rejects.toThrow(/is of another run: benign data differ$/);

    const flagged = await fresh();
    const seen: number[] = [];
    const run = await trainRedFlag(flagged, { ...options, onStep: ({ step }) => seen.push(step) });
    expect(seen).toEqual([4, 5, 6]);
    expect(numbers(run.steps)).toEqual(numbers(steps));
    expect(await values(flagged)).toEqual(await values(whole));
    await run.save(join(folder, "adapter"));
    expect(await readdir(folder)).toEqual(["adapter"]);
  });

  it("adapts only the layers asked for", async () => {
    const flagged = await fresh();
    await trainRedFlag(flagged, { ...training, targets: ["q", "down"], steps: 1 });
    expect(flagged.adapter?.config.targets).toEqual([
      "layers.0.q",
      "layers.0.down",
      "layers.1.q",
      "layers.1.down",
    ]);
    await trainRedFlag(flagged, { ...training, targets: ["layers.1.up", "k"], steps: 1 });
    expect(flagged.adapter?.config.targets).toEqual(["layers.0.k", "layers.1.k", "layers.1.up"]);
  });

  it("takes a warm-up below 1 as a share of the steps", async () => {
    const flagged = await fresh();
    const { steps } = await trainRedFlag(flagged, {
      ...training,
      steps: 8,
      warmup: 0.5,
      lr: 1,
      clip: 1e-9,
      decay: "constant",
    });
    expect(steps.map(({ lr }) => lr)).toEqual([0.25, 0.5, 0.75, 1, 1, 1, 1, 1]);
  });
});

describe("what is refused", () => {
  it.each<[object, RegExp]>([
    [{ steps: 0 }, /^steps must be an integer from 1, got 0/],
    [{ steps: 1.5 }, /^steps must/],
    [{ accumulate: 0 }, /^accumulate must/],
    [{ bucket: 0 }, /^bucket must/],
    [{ rank: 0 }, /^rank must/],
    [{ maxResponse: 0 }, /^maxResponse must/],
    [{ harmfulBatch: -1 }, /^harmfulBatch must/],
    [{ minOffset: -1 }, /^minOffset must/],
    [{ harmfulBatch: 0, benignBatch: 0 }, /^a batch must hold/],
    [{ lr: -1 }, /^lr must/],
    [{ lr: Number.NaN }, /^lr must/],
    [{ alpha: -1 }, /^alpha must/],
    [{ dropout: 1 }, /^dropout must be in \[0, 1\), got 1/],
    [{ clip: -1 }, /^clip must/],
    [{ weightDecay: -0.1 }, /^weightDecay must/],
    [{ warmup: -1 }, /^warmup must/],
    [{ placement: "random" }, /^placement must be uniform/],
    [{ method: "qlora" }, /^method must be lora or full, got 'qlora'/],
    [{ divergence: 1 }, /^divergence must be 0 or a number above 1/],
    [{ decay: "linear" }, /^decay must be cosine or constant, got 'linear'/],
    [{ loss: { ce: -1 } }, /^ce must/],
    [{ loss: { reduction: "max" } }, /^reduction must be mean or sum, got 'max'/],
    [{ loss: { klDirection: "both" } }, /^klDirection must be forward or reverse/],
    [{ targets: ["q", "zz"] }, /^targets: 'zz' is none of the model's layers: q, k, v,/],
    [{ targets: "q" }, /^targets must be 'all' or a list/],
    [{ seed: 0.5 }, /^seed must/],
    [{ harmful: [] }, /^harmful: none of the 0 examples/],
    [{ benign: [{ prompt: "a" }] }, /^benign: none of the 1 examples/],
    [
      { harmful: [{ prompt: "a", response: "b", onset: 1 }], maxResponse: 2 },
      /^harmful: none of the 1 examples/,
    ],
  ])("%j", async (wrong, message) => {
    const run = trainRedFlag(await fresh(), { ...training, ...wrong });
    await expect(run).rejects.toThrow(RangeError);
    await expect(run).rejects.toThrow(message);
  });

  it("a model without a tokenizer", async () => {
    const flagged = await addRedFlag(await loudModel(backend, llama));
    await expect(trainRedFlag(flagged, training)).rejects.toThrow(/no tokenizer/);
  });

  it("defaults are PAPER.md's", () => {
    expect(RED_FLAG_DEFAULTS).toMatchObject({
      ...{
        lr: 2e-4,
        warmup: 0.03,
        decay: "cosine",
        weightDecay: 0,
        clip: 1,
        rank: 64,
        alpha: 16,
        targets: "all",
      },
      ...{ minOffset: 0, loss: { ce: 1, post: 1, benign: 1, reduction: "mean", klDirection: "forward" } },
    });
  });
});
