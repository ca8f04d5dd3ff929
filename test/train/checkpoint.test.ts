import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { FormatError } from "../../src/errors.js";
import { openFiles } from "../../src/formats/files.js";
import { openSafetensors } from "../../src/formats/safetensors.js";
import { initialise } from "../../src/model/init.js";
import { Random } from "../../src/random.js";
import { BYTE_SPECIALS, byteTokenizer } from "../../src/tokenizer.js";
import { type CheckpointOptions, hasCheckpoint, removeCheckpoint } from "../../src/train/checkpoint.js";
import { textDocuments, toCorpus } from "../../src/train/corpus.js";
import { difference, digestOf, factsOf } from "../../src/train/fingerprint.js";
import { type PretrainOptions, pretrain } from "../../src/train/pretrain.js";
import type { TrainStep } from "../../src/train/trainer.js";
import { temporaryFolder } from "../formats/helpers.js";
import { baseline, llama } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const tokenizer = byteTokenizer();
const config = { ...llama, vocabSize: 258, contextLength: 32 };
const corpusOf = (text: string) =>
  toCorpus(tokenizer, textDocuments(text, "a.txt"), BYTE_SPECIALS.bos, BYTE_SPECIALS.eos);
const corpus = corpusOf("the cat sat on the mat.\n\nthe dog sat on the log.\n\nthe hen sat on the pen.\n");
const options: PretrainOptions = {
  ...{ lr: 0.01, steps: 7, warmup: 3, decay: "cosine", accumulate: 2, clip: 1 },
  ...{ batch: 2, seed: 1, weightDecay: 0.1 },
};

interface Run {
  /** Without their speed. */
  readonly steps: Omit<TrainStep, "tokensPerSecond">[];
  readonly weights: string;
}

/** Trains to the end, or until `stopAfter` steps of this process have been seen. */
async function run(extra: Partial<PretrainOptions> = {}, stopAfter = Infinity, text = corpus): Promise<Run> {
  const model = initialise(backend, config, tokenizer, new Random(1));
  const controller = new AbortController();
  const steps: Run["steps"] = [];
  try {
    for await (const { tokensPerSecond, ...step } of pretrain(model, text, {
      ...options,
      ...extra,
      signal: controller.signal,
    })) {
      steps.push(step);
      if (steps.length === stopAfter) controller.abort(new Error("stopped"));
    }
    return { steps, weights: await digestOf((await model.weights.all.read()).slice()) };
  } finally {
    model.dispose();
  }
}

/** The same, which must end by its signal. */
async function stopped(extra: Partial<PretrainOptions>, after: number): Promise<void> {
  await expect(run(extra, after)).rejects.toThrow("stopped");
}

const keeping = (folder: string, more: Partial<CheckpointOptions> = {}) => ({
  checkpoint: { folder, every: 100, resume: true, ...more },
});

describe("a run that goes on from a checkpoint", () => {
  it("takes the steps that it would have taken, to the bit, wherever it was stopped", async () => {
    const whole = await run();
    for (let after = 1; after < options.steps; after++) {
      const folder = join(await temporaryFolder(), "run");
      await stopped(keeping(folder), after);
      const before: (readonly TrainStep[])[] = [];
      const rest = await run(keeping(folder, { onRestore: (steps) => before.push(steps) }));
      expect(rest.weights).toBe(whole.weights);
      expect(rest.steps).toEqual(whole.steps.slice(after));
      expect(before).toEqual([whole.steps.slice(0, after).map((step) => expect.objectContaining(step))]);
    }
  });

  it.each([-1, 1.5, Number.NaN])("every %d steps is refused", async (every) => {
    const folder = join(await temporaryFolder(), "run");
    await expect(run(keeping(folder, { every }))).rejects.toThrow(/^checkpoint\.every must be an integer/);
  });

  it("may be stopped again and again", async () => {
    const whole = await run();
    const folder = join(await temporaryFolder(), "run");
    for (let i = 0; i < 5; i++) await stopped(keeping(folder), 1);
    const rest = await run(keeping(folder));
    expect(rest).toEqual({ ...whole, steps: whole.steps.slice(5) });
  });

  it("has one every so many steps, but none after the last", async () => {
    const folder = join(await temporaryFolder(), "run");
    await run(keeping(folder, { every: 2 }));
    expect(await readdir(folder)).toEqual(["state.safetensors"]);
    const resumed = await run(keeping(folder));
    expect(resumed.steps.map(({ step }) => step)).toEqual([7]);
  });

  it("that has none begins, and says that there were no steps", async () => {
    const folder = join(await temporaryFolder(), "run");
    const before: (readonly TrainStep[])[] = [];
    const { weights } = await run(keeping(folder, { every: 0, onRestore: (steps) => before.push(steps) }));
    expect(before).toEqual([[]]);
    expect(weights).toBe((await run()).weights);
    expect(await hasCheckpoint(folder)).toBe(false);
    await stopped(keeping(folder, { every: 0 }), 2);
    expect(await hasCheckpoint(folder)).toBe(false);
  });

  it("watches the loss as if it had seen all of it", async () => {
    // Diverges at once; the limit of 20 steps is reached only with those before the checkpoint.
    const wild = {
      ...({ steps: 60, lr: 10, warmup: 20, decay: "constant", clip: Infinity, weightDecay: 0 } as const),
      divergence: 1.05,
    };
    const message = async (more: Partial<PretrainOptions>) => {
      const error = await run({ ...wild, ...more }).catch((error: Error) => error);
      return error instanceof Error ? error.message : "no error";
    };
    const folder = join(await temporaryFolder(), "run");
    const whole = await message({});
    expect(whole).toMatch(/^step \d+: the loss has stayed above .* \(windows from a\.txt:\d, .*\)$/);
    await stopped({ ...wild, ...keeping(folder) }, 15);
    expect(await message(keeping(folder))).toBe(`${whole}; ${folder} holds the run after step 15`);
    expect(Number(/\d+/.exec(whole)?.[0])).toBeLessThan(35);
  });
});

describe("a checkpoint", () => {
  const broken = async () => {
    const folder = join(await temporaryFolder(), "run");
    await stopped(keeping(folder), 2);
    return folder;
  };
  const error = async (folder: string, extra: Partial<PretrainOptions> = {}, text = corpus) => {
    const found = await run({ ...keeping(folder), ...extra }, Infinity, text).catch((error: Error) => error);
    expect(found).toBeInstanceOf(FormatError);
    return (found as FormatError).message.replace(folder, "run");
  };

  it("is a safetensors file: parameters and moments by name, the rest as JSON", async () => {
    const folder = await broken();
    const files = await openFiles(join(folder, "state.safetensors"));
    const file = await openSafetensors(await files.open("state.safetensors"));
    const { tensors, metadata } = file;
    expect(tensors.get("m.embed.weight")?.shape).toEqual([258, config.hiddenSize]);
    expect([...tensors.keys()].filter((name) => name.startsWith("v.layers.1."))).not.toEqual([]);
    expect(Object.keys(metadata).sort()).toEqual(["fingerprint", "format", "step"]);
    expect(metadata.step).toBe("2");
    const state = JSON.parse(Buffer.from(await file.readRaw("state")).toString());
    expect(Object.keys(state)).toEqual(["batches", "steps"]);
    await file.close();
  });

  it("is not overwritten by a run that does not go on from it", async () => {
    const folder = await broken();
    const before = await readFile(join(folder, "state.safetensors"));
    const fresh = keeping(folder, { resume: false, every: 1 });
    expect(await error(folder, fresh)).toMatch(/^run: holds a checkpoint: set resume/);
    expect(await readFile(join(folder, "state.safetensors"))).toEqual(before);
  });

  it("of another run is refused, and what differs is named", async () => {
    const folder = await broken();
    const path = "run/state.safetensors: is of another run: ";
    expect(await error(folder, { lr: 0.02 })).toBe(`${path}lr was 0.01 and is 0.02`);
    expect(await error(folder, { seed: 2, clip: Infinity })).toBe(
      `${path}clip was 1 and is Infinity; seed was 1 and is 2`,
    );
    expect(await error(folder, {}, corpusOf("something else."))).toBe(`${path}data differ`);
    const facts = { checkpoint: { ...keeping(folder).checkpoint, facts: { version: "2" } } };
    expect(await error(folder, facts)).toBe(`${path}version was not set and is 2`);
  });

  it("does not depend on when to stop, and what is measured in passing", async () => {
    const whole = await run();
    const folder = await broken();
    const holdout = { corpus: corpusOf("the cow sat."), every: 3 };
    expect((await run({ ...keeping(folder), divergence: 0, holdout })).weights).toBe(whole.weights);
  });

  it.each<[string, (file: Buffer) => Buffer, RegExp]>([
    ["cut", (file) => file.subarray(0, file.length - 5), /^run\/state\.safetensors: /],
    ["empty", () => Buffer.alloc(0), /^run\/state\.safetensors: has 0 bytes/],
    [
      "of another format",
      (file) => Buffer.from(file.toString("latin1").replace("checkpoint 1", "checkpoint 9"), "latin1"),
      /^run\/state\.safetensors: is not an 'oriflamme checkpoint 1'$/,
    ],
  ])("that is %s is refused by name", async (_, edit, message) => {
    const folder = await broken();
    const path = join(folder, "state.safetensors");
    await writeFile(path, edit(await readFile(path)));
    expect(await error(folder)).toMatch(message);
  });

  it("is removed with what a crash left of it, and nothing else", async () => {
    const folder = await broken();
    await writeFile(join(folder, "state.safetensors.partial-1"), "half");
    await removeCheckpoint(folder);
    await expect(readdir(folder)).rejects.toThrow("ENOENT");
    await removeCheckpoint(folder);
    await mkdir(folder);
    await writeFile(join(folder, "state.safetensors.partial-1"), "half");
    await writeFile(join(folder, "mine"), "mine");
    // A run that begins sweeps what was left too.
    await run(keeping(folder, { every: 0 }));
    expect(await readdir(folder)).toEqual(["mine"]);
    await removeCheckpoint(folder);
    expect(await readdir(folder)).toEqual(["mine"]);
  });
});

describe("a fingerprint", () => {
  it("has nested settings under dotted names, and what JSON has not as text", () => {
    expect(factsOf({ a: 1, b: { c: [1, 2], d: { e: null } }, f: undefined, g: Infinity, h: "x" })).toEqual({
      ...{ a: 1, "b.c": "[1,2]", "b.d.e": null, g: "Infinity", h: "x" },
    });
  });

  it("is compared by name: a few differences are told, the others counted", async () => {
    expect(difference({ a: 1, b: true }, { b: true, a: 1 })).toBeNull();
    expect(difference({ a: 1 }, { a: 1, b: 2 })).toBe("b was not set and is 2");
    const [one, two] = [await digestOf("1"), await digestOf("2")];
    expect(difference({ data: one }, { data: two })).toBe("data differ");
    expect(difference({ a: 1, b: 1, c: 1, d: 1, e: 1 }, { a: 2, b: 2, c: 2, d: 2, e: 2 })).toBe(
      "a was 1 and is 2; b was 1 and is 2; c was 1 and is 2; and 2 more",
    );
  });

  it("has SHA-256 of UTF-8", async () => {
    // FIPS 180-2, appendix B.1.
    expect(await digestOf("abc")).toBe(
      "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
  });
});
