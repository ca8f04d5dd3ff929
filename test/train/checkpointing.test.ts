import { expect, it } from "vitest";
import { type RedFlagTraining, trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag } from "../../src/flag/vocab.js";
import { initialise } from "../../src/model/init.js";
import { Random } from "../../src/random.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { languageLoss } from "../../src/train/language.js";
import { type TrainStep, train } from "../../src/train/trainer.js";
import { ALL_CONFIGS, baseline, llama, loudModel, randomIds } from "../model/tiny.js";

const OPTIONS = { lr: 0.01, steps: 3, warmup: 0, decay: "constant", accumulate: 2, clip: 1 } as const;

it.each(ALL_CONFIGS)("trains all of %s to the same bits", async (_, config) => {
  const backend = await baseline();
  const run = async (gradientCheckpointing: boolean) => {
    const model = await loudModel(backend, config);
    const batches = { next: () => ({ ids: randomIds(3 * 20, config.vocabSize), batch: 3 }), state: null };
    const steps: TrainStep[] = [];
    const options = { ...OPTIONS, gradientCheckpointing };
    for await (const step of train(model.weights, languageLoss(model), batches, options)) steps.push(step);
    return {
      losses: steps.map(({ loss, gradientNorm }) => [loss, gradientNorm]),
      weights: await model.weights.all.read(),
    };
  };
  expect(await run(true)).toEqual(await run(false));
  backend.dispose();
});

it("trains a flag to the same bits", async () => {
  const backend = await baseline();
  const run = async (gradientCheckpointing: boolean) => {
    const config = { ...llama, vocabSize: 258, contextLength: 48 };
    const flagged = await addRedFlag(await loudModel(backend, config, byteTokenizer()));
    const training: RedFlagTraining = {
      harmful: [{ prompt: "the wolf ", response: "came and bit the hen", onset: 9 }],
      benign: [{ prompt: "the cow ", response: "came and fed the hen" }],
      ...{ steps: 4, lr: 0.01, warmup: 0, rank: 4, alpha: 8, harmfulBatch: 2, benignBatch: 2 },
      gradientCheckpointing,
    };
    const { steps } = await trainRedFlag(flagged, training);
    return { losses: steps.map(({ loss }) => loss), values: await flagged.adapter?.parameters.all.read() };
  };
  expect(await run(true)).toEqual(await run(false));
  backend.dispose();
});

it("takes less memory: of a block its input and result, and one block at a time whole", async () => {
  const config = {
    ...llama,
    ...{ hiddenSize: 64, layers: 12, heads: 4, kvHeads: 4, headDim: 16, intermediateSize: 172 },
    ...{ vocabSize: 300, contextLength: 128 },
  };
  const activations = async (gradientCheckpointing: boolean) => {
    const backend = await baseline();
    const model = initialise(backend, config, null, new Random(1));
    const batches = { next: () => ({ ids: randomIds(4 * 128, 300), batch: 4 }), state: null };
    const options = { ...OPTIONS, steps: 1, accumulate: 1, gradientCheckpointing };
    let bytes = 0;
    for await (const _ of train(model.weights, languageLoss(model), batches, options))
      bytes = backend.memory().uses.activations;
    backend.dispose();
    return bytes;
  };
  const [kept, again] = [await activations(false), await activations(true)];
  // Rows of the residual stream: two blocks in each of 12 layers, and their gradients' place.
  const stream = 4 * 128 * 64 * 4;
  expect(again).toBeGreaterThan(24 * stream);
  // Each layer saves some 16 such rows (norms, q, k, v, attention, gate, up, product), of which it keeps 2.
  expect(again).toBeLessThan(kept / 3);
});
