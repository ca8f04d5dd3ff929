import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { FormatError } from "../../src/errors.js";
import { FLAG_LOSS, type FlagBatch, redFlagLoss } from "../../src/flag/loss.js";
import { FlagScorer } from "../../src/flag/score.js";
import { loadRedFlag, saveRedFlag } from "../../src/flag/store.js";
import { type RedFlagTraining, trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag, type FlaggedModel, type RedFlagOptions } from "../../src/flag/vocab.js";
import { loadModel } from "../../src/formats/load-model.js";
import { initialise } from "../../src/model/init.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { AdamW } from "../../src/train/optimiser.js";
import { rejection, temporaryFolder } from "../formats/helpers.js";
import { type ReferenceModel, referenceOf } from "../model/reference.js";
import { ALL_CONFIGS, baseline, CONFIGS, llama, logitsOf, loudModel, mistral } from "../model/tiny.js";
import { referenceTerms, weighted } from "./reference.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const tokenizer = byteTokenizer();
const sized = { ...mistral, vocabSize: 258, contextLength: 48 };

/** A flag whose rows and weights have moved away from where they began. */
async function moved(config = sized, options: RedFlagOptions = {}): Promise<FlaggedModel> {
  const model = await loudModel(backend, config, config.vocabSize === 258 ? tokenizer : null);
  const flagged = await addRedFlag(model, options);
  const tuning = await flagged.attachFull();
  const random = new Random(9);
  for (const [, tensor] of tuning.parameters.entries()) {
    tensor.write((await tensor.read()).map((value) => value * (1 + 0.1 * random.normal())));
  }
  return flagged;
}

describe.each(ALL_CONFIGS)("the loss with all weights of %s in training", (_, config) => {
  const batch: FlagBatch = {
    harmful: [{ prompt: [1, 2], response: [3, 4, 5], onset: 1, insertAt: 2 }],
    benign: [{ prompt: [5], response: [6, 7] }],
  };

  it("is the formulas', and so are the gradients", async () => {
    const flagged = await moved(config);
    const { tuning } = flagged;
    if (!tuning) throw new Error("nothing to train");
    const now = await referenceOf(flagged.model, tuning);
    const before = await referenceOf(flagged.model, flagged.reference);
    const optimiser = new AdamW(tuning.parameters);
    const tape = new Tape(new Arena(backend));
    const read = redFlagLoss(flagged)(tape, batch, 1);
    tape.backward();
    const report = await read();
    const loss = () => weighted(referenceTerms(batch, now, before, FLAG_LOSS, 19), FLAG_LOSS);
    const terms = referenceTerms(batch, now, before, FLAG_LOSS, 19);
    for (const name of ["ce", "post", "benign"] as const) {
      expect(terms[name]).toBeGreaterThan(0.01);
      expect((report.terms[name] ?? Number.NaN) / terms[name], name).toBeCloseTo(1, 3);
    }
    const names = [...tuning.parameters.entries()].map(([name]) => name);
    // Every kind of weight that the architecture has, of the last layer where there are several.
    for (const name of names.filter((name) => !name.startsWith("layers.0."))) {
      const values = valuesOf(now, name);
      const gradient = await optimiser.gradients.get(name).read();
      const scale = Math.hypot(...gradient) / Math.sqrt(gradient.length);
      // The largest of its coordinates, and one that lies in the row of a token of the batch.
      const largest = gradient.reduce(
        (best, value, i) => (Math.abs(value) > Math.abs(gradient[best] ?? 0) ? i : best),
        0,
      );
      for (const at of [largest, Math.min(values.length - 1, 3 * 16 + 5)]) {
        const was = values[at] ?? 0;
        const [up = 0, down = 0] = [1e-5, -1e-5].map((h) => {
          values[at] = was + h;
          return loss();
        });
        values[at] = was;
        const expected = (up - down) / 2e-5;
        const error = Math.abs((gradient[at] ?? Number.NaN) - expected);
        expect(error, `${name}[${at}]`).toBeLessThan(2e-3 * (scale + Math.abs(expected)));
      }
    }
    optimiser.dispose();
    flagged.dispose();
  });
});

function valuesOf(m: ReferenceModel, name: string): Float64Array {
  const rows = { "rows.input": m.input, "rows.output": m.output }[name];
  const values = rows ? rows.get(19) : m.weights.get(name);
  if (!values) throw new Error(`no ${name}`);
  return values;
}

describe("training all weights", () => {
  const training: RedFlagTraining = {
    harmful: [{ prompt: "the wolf ", response: "came and bit the hen", onset: 9 }],
    benign: [{ prompt: "the cow ", response: "came and fed the hen" }],
    ...{ steps: 40, lr: 0.02, warmup: 0, harmfulBatch: 1, benignBatch: 1, method: "full" },
  };

  it("moves them, leaves the base and the reference alone, and takes memory back", async () => {
    const model = await loudModel(backend, sized, tokenizer);
    const base = await model.weights.all.read();
    const { used } = backend.memory();
    const flagged = await addRedFlag(model);
    const reference = await logitsOf(model, [1, 2], { overlay: flagged.reference });
    const { steps } = await trainRedFlag(flagged, training);
    expect(steps.at(-1)?.terms.ce).toBeLessThan(0.5 * (steps[0]?.terms.ce ?? 0));
    expect(await model.weights.all.read()).toEqual(base);
    expect(await logitsOf(model, [1, 2], { overlay: flagged.reference })).toEqual(reference);
    for (const [name, tensor] of flagged.tuning?.parameters.entries() ?? []) {
      const before = model.weights.has(name) ? await model.weight(name).read() : flagged.initial.input;
      expect(await tensor.read(), name).not.toEqual(before);
    }
    expect(flagged.adapter).toBeUndefined();
    const utility = await new FlagScorer(flagged).utility({ prompt: [1, 2], response: [3, 4] });
    expect(utility.kl).toBeGreaterThan(0);
    flagged.attach({ rank: 2, alpha: 4, targets: [] }, 0);
    expect(flagged.adapter).toBeDefined();
    flagged.dispose();
    // What the scorer's arena holds is its own.
    expect(backend.memory().used - used).toBeLessThan(3 << 20);
  });

  it("goes on from a checkpoint to the same bits, attacked or not", async () => {
    const adversarial = { share: 0.5, steps: 2, stepSize: 0.01 };
    const run = async (changes: Partial<RedFlagTraining>) => {
      const flagged = await addRedFlag(await loudModel(backend, sized, tokenizer));
      await trainRedFlag(flagged, { ...training, steps: 5, adversarial, ...changes });
      return flagged.tuning?.parameters.all.read();
    };
    const controller = new AbortController();
    const onStep = ({ step }: { step: number }) => {
      if (step === 3) controller.abort(new Error("enough"));
    };
    const checkpoint = { folder: join(await temporaryFolder(), "run"), every: 2, resume: true };
    await expect(run({ checkpoint, onStep, signal: controller.signal })).rejects.toThrow("enough");
    const seen: number[] = [];
    const resumed = await run({ checkpoint, onStep: ({ step }) => seen.push(step) });
    expect(seen).toEqual([4, 5]);
    expect(resumed).toEqual(await run({}));
    expect(resumed).not.toEqual(await run({ adversarial: { share: 0 } }));
  });

  it("takes a base that is stored in 8 bits, and trains in f32 from there", async () => {
    const wide = { ...llama, vocabSize: 258, hiddenSize: 32, heads: 4, headDim: 8, intermediateSize: 32 };
    const model = initialise(backend, { ...wide, contextLength: 48 }, tokenizer, new Random(3), "q8_0");
    const flagged = await addRedFlag(model);
    const before = await logitsOf(model, [1, 2], { overlay: flagged.reference });
    await flagged.attachFull();
    const after = await logitsOf(model, [1, 2], { overlay: flagged.overlay });
    // The product of 8-bit blocks rounds activations too.
    const size = Math.hypot(...before);
    expect(Math.hypot(...before.map((value, i) => value - (after[i] ?? 0)))).toBeLessThan(0.02 * size);
    const { steps } = await trainRedFlag(flagged, { ...training, steps: 2 });
    expect(steps).toHaveLength(2);
    flagged.dispose();
  });
});

describe("a model trained whole, in a folder", () => {
  const logits = ({ model, overlay }: FlaggedModel) => logitsOf(model, [1, 2, 257, 3], { overlay });

  it.each(
    CONFIGS.flatMap(
      ([name, config]) =>
        [
          [name, config, {}],
          [name, config, { categories: ["wolves", "foxes"], reuse: ["<eos>", 3] }],
        ] as const,
    ),
  )("of %s is the same again over its base, and a model of its own: %#", async (_, config, options) => {
    const flagged = await moved({ ...config, vocabSize: 258 }, options);
    const folder = join(await temporaryFolder(), "model");
    await saveRedFlag(flagged, folder);
    expect((await readdir(folder)).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "oriflamme.json",
    ]);
    const again = await loadRedFlag(
      await loudModel(backend, { ...config, vocabSize: 258 }, tokenizer),
      folder,
    );
    expect([again.flagIds, again.categories]).toEqual([flagged.flagIds, flagged.categories]);
    expect(await logits(again)).toEqual(await logits(flagged));
    const reference = (which: FlaggedModel) => logitsOf(which.model, [1, 2], { overlay: which.reference });
    expect(await reference(again)).toEqual(await reference(flagged));

    const alone = await loadModel(folder, { backend });
    const found = await logitsOf(alone, [1, 2, 257, 3]);
    const expected = await logits(flagged);
    // A row among the others is summed in another order.
    expect(Math.max(...found.map((value, i) => Math.abs(value - (expected[i] ?? 0))))).toBeLessThan(1e-3);
  });

  const refusal = async (flagged: FlaggedModel, edit: object, model = flagged.model) => {
    const folder = join(await temporaryFolder(), "model");
    await saveRedFlag(flagged, folder);
    const facts = join(folder, "oriflamme.json");
    await writeFile(facts, JSON.stringify({ ...JSON.parse(await readFile(facts, "utf8")), ...edit }));
    const { used } = backend.memory();
    const error = await rejection(loadRedFlag(model, folder));
    expect(backend.memory().used).toBe(used);
    expect(error).toBeInstanceOf(FormatError);
    return error.message;
  };

  it.each<[object, RegExp]>([
    [{ method: "lora" }, /oriflamme\.json: 'method' must be 'full' where there is no adapter/],
    [{ method: null }, /oriflamme\.json: 'method' is missing/],
    [{ ids: 258 }, /oriflamme\.json: 'ids' must be a list of token ids/],
    [{ ids: [258, 259] }, /oriflamme\.json: 'ids' are 2 for 0 categories/],
    [{ ids: [300] }, /is for another base: flag 300 with a vocabulary of 258/],
    [{ ids: [3] }, /is for another base: 'embed\.weight' has shape \(259, 16\), expected \(258, 16\)/],
    [{ vocabSize: 300 }, /is for another base: its vocabulary has 300 tokens/],
  ])("whose facts say %j is refused", async (edit, message) => {
    expect(await refusal(await moved(), edit)).toMatch(message);
  });

  it("over another base, or over itself, is refused", async () => {
    const flagged = await moved(sized, { reuse: "<eos>" });
    expect(await refusal(flagged, {}, await loudModel(backend, sized, tokenizer, 2))).toMatch(
      /the weights that it was trained over are not this model's$/,
    );
    const folder = join(await temporaryFolder(), "model");
    await saveRedFlag(flagged, folder);
    const itself = await loadModel(folder, { backend });
    expect((await rejection(loadRedFlag(itself, folder))).message).toMatch(
      /is laid over itself: the model must be the base that it was trained from$/,
    );
  });
});
