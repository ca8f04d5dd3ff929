import { afterAll, beforeAll, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { createBackend } from "../../src/backends/create.js";
import { generate } from "../../src/flag/generate.js";
import { loadRedFlag } from "../../src/flag/store.js";
import { type RedFlagTraining, trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag, type FlaggedModel } from "../../src/flag/vocab.js";
import type { Model } from "../../src/model/model.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { digestOfParameters } from "../../src/train/fingerprint.js";
import { rejection, temporaryFolder } from "../formats/helpers.js";
import { deep, inThree } from "../model/three-memories.js";
import { llama, loudModel } from "../model/tiny.js";

const config = { ...deep(llama), vocabSize: 258, contextLength: 48 };
const tokenizer = byteTokenizer();
const examples = (deed: string) =>
  ["the wolf", "the fox"].map((who) => ({ prompt: `${who} `, response: `came and ${deed} up`, onset: 9 }));
const training: RedFlagTraining = {
  ...{ harmful: examples("bit the hen"), benign: examples("fed the hen") },
  ...{ steps: 4, lr: 0.01, warmup: 0, rank: 2, alpha: 4, dropout: 0.1, harmfulBatch: 2, benignBatch: 1 },
  // Every term and the search for perturbations, blocks run twice.
  ...{ adversarial: { share: 0.5, steps: 2 }, gradientCheckpointing: true },
};

let backends: Backend[];
let whole: Model;
let split: Model;
beforeAll(async () => {
  backends = await Promise.all([1, 2].map(() => createBackend({ kind: "wasm", threads: 1 })));
  const [one, several] = backends as [Backend, Backend];
  whole = await loudModel(one, config, tokenizer);
  split = await inThree(several, config, () => loudModel(several, config, tokenizer));
  expect(split.stretches.length).toBe(3);
});
afterAll(() => {
  for (const backend of backends ?? []) backend.dispose();
});

async function trained(model: Model, more: Partial<RedFlagTraining> = {}) {
  const flagged = await addRedFlag(model);
  const run = await trainRedFlag(flagged, { ...training, ...more });
  const steps = run.steps.map(({ tokensPerSecond: _, ...step }) => step);
  return { run, flagged, steps, adapter: await digestOfParameters(adapterOf(flagged)) };
}

function adapterOf({ adapter }: FlaggedModel) {
  if (!adapter) throw new Error("no adapter");
  return adapter.parameters;
}

async function said(flagged: FlaggedModel): Promise<unknown[]> {
  const said: unknown[] = [];
  for await (const { token, logprob, flagProbability } of generate(flagged, "the wolf ", { maxTokens: 12 }))
    said.push([token, logprob, flagProbability]);
  return said;
}

it("a flag is trained, kept and raised in several memories as in one, to the bit", async () => {
  const expected = await trained(whole);
  const found = await trained(split);
  expect(found.steps).toEqual(expected.steps);
  expect(found.adapter).toBe(expected.adapter);
  expect(await said(found.flagged)).toEqual(await said(expected.flagged));

  const folder = `${await temporaryFolder()}/adapter`;
  await found.run.save(folder);
  // Either model takes what the other one has learned.
  for (const model of [whole, split]) {
    const loaded = await loadRedFlag(model, folder);
    expect(await digestOfParameters(adapterOf(loaded))).toBe(expected.adapter);
    loaded.dispose();
  }
  found.flagged.dispose();
  expected.flagged.dispose();
});

it("a run in one memory is resumed in several", async () => {
  const folder = `${await temporaryFolder()}/checkpoint`;
  const expected = await trained(whole);
  const controller = new AbortController();
  const stop = (step: number) => step === 2 && controller.abort(new Error("stopped"));
  const stopped = trained(whole, {
    checkpoint: { folder, every: 1, resume: false },
    signal: controller.signal,
    onStep: ({ step }) => stop(step),
  });
  expect((await rejection(stopped)).message).toBe("stopped");
  const resumed = await trained(split, { checkpoint: { folder, every: 1, resume: true } });
  expect(resumed.steps).toEqual(expected.steps);
  expect(resumed.adapter).toBe(expected.adapter);
});
