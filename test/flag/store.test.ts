import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { loadRedFlag, saveCalibration, saveRedFlag } from "../../src/flag/store.js";
import { addRedFlag, type FlaggedModel, type RedFlagOptions } from "../../src/flag/vocab.js";
import { openFiles } from "../../src/formats/files.js";
import { type AdapterData, readAdapter, writeAdapter } from "../../src/formats/peft.js";
import { linearLayers, type ModelConfig } from "../../src/model/config.js";
import type { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { rejection, temporaryFolder } from "../formats/helpers.js";
import { maxDifference } from "../golden.js";
import { ALL_CONFIGS, baseline, llama, logitsOf, loudModel, mistral } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const tokenizer = byteTokenizer();
const sized = (config: ModelConfig) => ({ ...config, vocabSize: 258 });
const ids = [1, 2, 257, 3];

/** A flag that was trained: every value has moved. */
async function trained(model: Model, options: RedFlagOptions = {}): Promise<FlaggedModel> {
  const flagged = await addRedFlag(model, options);
  const adapter = flagged.attach({ rank: 2, alpha: 8, targets: linearLayers(model.config) }, 1);
  const random = new Random(6);
  for (const [, tensor] of adapter.parameters.entries()) {
    tensor.write((await tensor.read()).map((value) => value + 0.2 * random.normal()));
  }
  return flagged;
}

/** A saved adapter, its data changed. */
async function saved(
  flagged: FlaggedModel,
  edit: (data: AdapterData) => AdapterData = (data) => data,
): Promise<string> {
  const folder = join(await temporaryFolder(), "adapter");
  await saveRedFlag(flagged, folder);
  const { config } = flagged.model;
  await writeAdapter(folder, edit(await readAdapter(await openFiles(folder), config)), config);
  return folder;
}

/** What loading is refused with; whatever it had allocated is given back. */
async function refusal(model: Model, folder: string): Promise<Error> {
  const { used } = backend.memory();
  const error = await rejection(loadRedFlag(model, folder));
  expect(backend.memory().used).toBe(used);
  return error;
}

describe.each(ALL_CONFIGS)("saved and loaded on %s", (_, config) => {
  it.each<RedFlagOptions>([
    {},
    { reuse: "<eos>", init: "reserved" },
    { token: "<danger>", init: "copy:<bos>" },
  ])("%j: the same logits, to the bit", async (options) => {
    const model = await loudModel(backend, sized(config), tokenizer);
    const flagged = await trained(model, options);
    const folder = join(await temporaryFolder(), "new", "adapter");
    await saveRedFlag(flagged, folder);
    const again = await loadRedFlag(await loudModel(backend, sized(config), tokenizer), folder);
    expect([again.flagId, again.token, again.init]).toEqual([flagged.flagId, flagged.token, flagged.init]);
    const logits = (which: FlaggedModel) => logitsOf(which.model, ids, { overlay: which.overlay });
    const reference = (which: FlaggedModel) => logitsOf(which.model, ids, { overlay: which.reference });
    expect(await logits(again)).toEqual(await logits(flagged));
    expect(await reference(again)).toEqual(await reference(flagged));
    expect(maxDifference(await logits(again), await reference(again))).toBeGreaterThan(0.1);
  });
});

it("saving again replaces the files, and leaves nothing beside them", async () => {
  const model = await loudModel(backend, sized(llama), tokenizer);
  const flagged = await trained(model);
  const parent = await temporaryFolder();
  const folder = join(parent, "adapter");
  await saveRedFlag(flagged, folder);
  const smaller = { rank: 3, alpha: 8, targets: ["layers.0.q", "layers.1.q"] };
  flagged.attach(smaller, 1);
  await saveRedFlag(flagged, folder);
  expect((await loadRedFlag(model, folder)).adapter?.config).toEqual(smaller);
  expect(await readdir(parent)).toEqual(["adapter"]);
  expect(await readdir(folder)).toEqual([
    "adapter_config.json",
    "adapter_model.safetensors",
    "oriflamme.json",
  ]);
  await expect(saveRedFlag(await addRedFlag(model), folder)).rejects.toThrow(/train it first/);
});

describe("an adapter for another base", () => {
  it("of another vocabulary is refused, though its row would fit", async () => {
    const folder = await saved(await trained(await loudModel(backend, sized(llama), tokenizer)));
    const other = await loudModel(backend, { ...llama, vocabSize: 300 }, tokenizer);
    const error = await refusal(other, folder);
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toBe(
      `${folder}: is for another base: its vocabulary has 258 tokens, this model's 300`,
    );
  });

  it("of the same shapes and other weights is refused, one that was quantised is not", async () => {
    const model = await loudModel(backend, sized(llama), tokenizer);
    const folder = await saved(await trained(model));
    const other = await loudModel(backend, sized(llama), tokenizer, 2);
    const error = await refusal(other, folder);
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toMatch(
      /: is for another base: the weights that it was trained over are not this model's$/,
    );
    const rounded = await loudModel(backend, sized(llama), tokenizer);
    for (const [, tensor] of rounded.weights.entries()) {
      tensor.write((await tensor.read()).map((value) => Math.round(value * 10) / 10));
    }
    expect((await loadRedFlag(rounded, folder)).flagId).toBe(258);
  });

  it("of other layers is refused", async () => {
    const folder = await saved(await trained(await loudModel(backend, sized(llama), tokenizer)));
    const deeper = await loudModel(backend, { ...sized(llama), layers: 1 }, tokenizer);
    expect((await refusal(deeper, folder)).message).toMatch(/for another base: tensor '.*layers\.1.*'/);
  });
});

describe("the self-test", () => {
  it("refuses a head whose row is the untrained one: it would never flag", async () => {
    const model = await loudModel(backend, sized(mistral), tokenizer);
    const flagged = await trained(model);
    const untrained = flagged.initial.output;
    const folder = await saved(flagged, (data) => ({
      ...data,
      rows: data.rows && { ...data.rows, output: untrained },
    }));
    const error = await refusal(model, folder);
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toMatch(/the head has its untrained row: it never flags$/);
  });

  it("lets a row pass that was not trained at all, as before the first step", async () => {
    const model = await loudModel(backend, sized(mistral), tokenizer);
    const flagged = await addRedFlag(model);
    flagged.attach({ rank: 2, alpha: 8, targets: ["layers.0.q", "layers.1.q"] }, 1);
    expect((await loadRedFlag(model, await saved(flagged))).flagId).toBe(258);
  });
});

describe("a calibration", () => {
  const calibration = {
    // A level whose decimal digits must all be kept.
    decision: { kind: "ema", decay: 0.9, level: 0.1 + 0.2 },
    fit: { falsePositiveRate: 0.01, examples: 400, data: "c0ffee" },
  } as const;

  it("is put beside what an adapter has, and read to the bit", async () => {
    const model = await loudModel(backend, sized(llama), tokenizer);
    const flagged = await trained(model);
    const folder = await saved(flagged, (data) => ({ ...data, facts: { ...data.facts, more: "stays" } }));
    const facts = async () => JSON.parse(await readFile(join(folder, "oriflamme.json"), "utf8"));
    const before = await facts();
    await saveCalibration(folder, calibration);
    expect(await facts()).toEqual({
      ...before,
      calibration: { ...calibration, decision: "ema=0.9,0.30000000000000004" },
    });
    expect(await readdir(folder)).toHaveLength(3);

    const again = await loadRedFlag(model, folder);
    expect(again.calibration).toEqual(calibration);
    expect(again.decision).toEqual(calibration.decision);
    const twice = join(await temporaryFolder(), "adapter");
    await saveRedFlag(again, twice);
    expect((await loadRedFlag(model, twice)).calibration).toEqual(calibration);
  });

  it("goes into an adapter that brings no facts", async () => {
    const model = await loudModel(backend, sized(llama), tokenizer);
    const folder = await saved(await trained(model));
    await rm(join(folder, "oriflamme.json"));
    await saveCalibration(folder, calibration);
    expect((await loadRedFlag(model, folder)).calibration).toEqual(calibration);
  });

  it("that is missing leaves P >= 0.5", async () => {
    const model = await loudModel(backend, sized(llama), tokenizer);
    expect((await trained(model)).decision).toEqual({ kind: "threshold", level: 0.5 });
  });
});

describe("files of others", () => {
  it("without our facts are taken with the defaults", async () => {
    const model = await loudModel(backend, sized(mistral), tokenizer);
    const flagged = await trained(model);
    const folder = join(await temporaryFolder(), "adapter");
    await saveRedFlag(flagged, folder);
    const files = await openFiles(folder);
    const data = await readAdapter(files, model.config);
    const bare = join(await temporaryFolder(), "bare");
    await writeAdapter(bare, { ...data, facts: null }, model.config);
    expect(await readdir(bare)).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
    const again = await loadRedFlag(model, bare);
    expect([again.token, again.init, again.flagId, again.calibration]).toEqual(["<rf>", "mean", 258, null]);
    expect(again.initial.input).toEqual(flagged.initial.input);
  });

  it("with several rows, or none, are refused", async () => {
    const model = await loudModel(backend, sized(llama), tokenizer);
    const flagged = await trained(model);
    const two = await saved(flagged, (data) => {
      const input = new Float32Array(32).fill(1);
      return { ...data, rows: { ids: [258, 259], input, output: input } };
    });
    const error = await refusal(model, two);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toMatch(
      /trains 2 token rows, but tells of 0 categories; a red flag has one row, or one for/,
    );
    const none = await saved(flagged, (data) => ({ ...data, rows: null }));
    expect((await refusal(model, none)).message).toMatch(/it holds no red flag$/);
  });

  it.each([
    [{ id: 3 }, /says that the flag is token 3, but has the row of 258/],
    [{ id: "x" }, /oriflamme\.json: 'id' must be an integer/],
    [{ token: 5 }, /oriflamme\.json: 'token' must be a string/],
    [{ init: 5 }, /oriflamme\.json: 'init' must be a string/],
    [{ init: "median" }, /init must be .*'median'/],
    [{ base: "abc" }, /oriflamme\.json: 'base' must be a list of 32 numbers/],
    [{ base: [1, 2] }, /oriflamme\.json: 'base' must be/],
    [{ vocabSize: null }, /oriflamme\.json: 'vocabSize' is missing/],
    [{ calibration: 5 }, /oriflamme\.json: 'calibration' must be an object/],
    [
      { calibration: { threshold: "high" } },
      /oriflamme\.json: 'calibration\.threshold' must be a number above 0/,
    ],
    [{ calibration: { fit: null } }, /oriflamme\.json: 'calibration\.decision' is missing/],
    [
      { calibration: { decision: "threshold=2" } },
      /oriflamme\.json: 'calibration\.decision' is none: .*'threshold=2' needs numbers/,
    ],
    [
      { calibration: { decision: "argmax", fit: { falsePositiveRate: 0.01, examples: 0, data: "" } } },
      /oriflamme\.json: 'calibration\.fit\.examples' must be an integer from 1/,
    ],
  ])("whose facts say %j are refused", async (facts, message) => {
    const model = await loudModel(backend, sized(llama), tokenizer);
    const folder = await saved(await trained(model), (data) => ({
      ...data,
      facts: { ...data.facts, ...facts },
    }));
    expect((await refusal(model, folder)).message).toMatch(message);
  });

  it("with the threshold of version 0.1 are read", async () => {
    const model = await loudModel(backend, sized(llama), tokenizer);
    const folder = await saved(await trained(model), (data) => ({
      ...data,
      facts: { ...data.facts, calibration: { threshold: 0.03 } },
    }));
    const again = await loadRedFlag(model, folder);
    expect(again.decision).toEqual({ kind: "threshold", level: 0.03 });
    expect(again.calibration?.fit).toBeNull();
  });
  it("that are cut short are refused", async () => {
    const model = await loudModel(backend, sized(llama), tokenizer);
    const folder = await saved(await trained(model));
    const weights = join(folder, "adapter_model.safetensors");
    await writeFile(weights, (await readFile(weights)).subarray(0, 3000));
    const error = await refusal(model, folder);
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toContain("adapter_model.safetensors");
  });
});
