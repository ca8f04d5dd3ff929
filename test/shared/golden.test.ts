import { openAsBlob } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { openFiles } from "../../src/formats/files.js";
import { toHuggingFaceName, transpose } from "../../src/formats/hf-names.js";
import { loadModel } from "../../src/formats/load-model.js";
import { decode } from "../../src/generate/decode.js";
import { GREEDY } from "../../src/generate/sample.js";
import { weightTypes } from "../../src/model/config.js";
import { forward, head } from "../../src/model/forward.js";
import { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { languageLoss } from "../../src/train/language.js";
import { AdamW } from "../../src/train/optimiser.js";
import { BACKENDS } from "../backends.js";
import { goldenModels, maxDifference, readGolden, relativeDifference } from "../golden.js";
import { sharedMissing, sharedPath } from "../shared.js";

/**
 * What rounding makes of a normal weight, root mean square, as a share of it: 2^-12 and 2^-9 at most for the floats,
 * a step of max|block| / 127 or / 8 over √12 for the blocks, whose largest of 32 is about 2.2 as much as is usual.
 */
const STORED = [
  ["f16", 2e-4],
  ["bf16", 1.6e-3],
  ["q8_0", 5e-3],
  ["q4_0", 8e-2],
] as const;

/** The same model with the configuration as most published files have it. */
async function withOldConfig(folder: string) {
  const names = { "config.json": "config.transformers4.json", "model.safetensors": "model.safetensors" };
  return new Map(
    await Promise.all(
      Object.entries(names).map(
        async ([name, file]) => [name, await openAsBlob(`${folder}/${file}`)] as const,
      ),
    ),
  );
}

/** The logits of two sequences. */
async function logitsOf(arena: Arena, model: Model, ids: ArrayLike<number>): Promise<Float32Array> {
  const tape = new Tape(arena, false);
  const logits = await head(tape, model, forward(tape, model, ids, { batch: 2 })).read();
  arena.reset();
  return logits;
}

const norm = (values: ArrayLike<number>) => Math.hypot(...Array.from(values));

describe.skipIf(sharedMissing("golden"))("golden values of PyTorch", () => {
  describe.each(BACKENDS)("on $name", ({ create, slack }) => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await create();
    });
    afterAll(() => backend?.dispose());

    it.each(goldenModels())("%s: logits, loss, gradients, greedy tokens", async (name) => {
      const folder = sharedPath("golden", name);
      const golden = await readGolden(`${folder}/golden.safetensors`);
      const facts = JSON.parse(await (await openFiles(folder)).text("golden.json"));
      const model = await loadModel(folder, { backend });
      const ids = await golden.integers("input_ids");
      const arena = new Arena(backend);

      const logits = await logitsOf(arena, model, ids);
      expect(maxDifference(logits, await golden.floats("logits"))).toBeLessThan(1e-4 * slack);
      const old = await loadModel(await withOldConfig(folder), { backend });
      expect(old.config).toEqual(model.config);
      expect(await logitsOf(arena, old, ids)).toEqual(logits);
      old.dispose();

      const optimiser = new AdamW(model.weights);
      const tape = new Tape(arena);
      const read = languageLoss(model)(tape, { ids, batch: 2 }, 1);
      tape.backward();
      expect(Math.abs((await read()).loss - facts.loss)).toBeLessThan(1e-5 * slack);
      for (const [ours, gradient] of optimiser.gradients.entries()) {
        const { name: theirs, transpose: isTransposed } = toHuggingFaceName(model.config, ours);
        const expected = await golden.floats(`grad.${theirs}`);
        const [rows = 1, cols = 1] = gradient.shape;
        const found = await gradient.read();
        const aligned = isTransposed ? transpose(found, rows, cols) : found;
        expect(relativeDifference(aligned, expected), theirs).toBeLessThan(1e-3 * slack);
      }
      optimiser.dispose();

      const options = {
        sampling: GREEDY,
        random: new Random(0),
        maxTokens: facts.greedy.length - 6,
        eosIds: [],
      };
      const tokens: number[] = [];
      for await (const step of decode(model, facts.greedy.slice(0, 6), options)) {
        if (step.kind === "token") tokens.push(step.id);
      }
      expect(tokens).toEqual(facts.greedy.slice(6));
      arena.dispose();
      model.dispose();
      await golden.close();
    });
  });

  // On a GPU `stored-weights.test.ts` has the products one by one.
  describe.each(BACKENDS.filter(({ name }) => name.startsWith("wasm")))("on $name", ({ create }) => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await create();
    });
    afterAll(() => backend?.dispose());

    it.each(goldenModels())("%s: stored in fewer bits, near what they keep of it", async (name) => {
      const folder = sharedPath("golden", name);
      const golden = await readGolden(`${folder}/golden.safetensors`);
      const ids = await golden.integers("input_ids");
      const expected = await golden.floats("logits");
      const arena = new Arena(backend);
      for (const [dtype, error] of STORED) {
        const stored = await loadModel(folder, { backend, dtype });
        const decoded = new Map<string, Float32Array>();
        for (const [weight, tensor] of stored.weights.entries()) decoded.set(weight, await tensor.read());
        const read = async (weight: string) => decoded.get(weight) as Float32Array;
        const plain = await Model.fromValues(backend, stored.config, null, read, "f32");
        const found = await logitsOf(arena, stored, ids);
        expect(maxDifference(found, await logitsOf(arena, plain, ids)), dtype).toBeLessThan(1e-4);
        // Errors of matrices that know nothing of one another add up as the root of their number. Over that they
        // came to 1 here, and to 4 in louder models, whose attention is sharp. Logits of another model are √2 away.
        const matrices = weightTypes(stored.config, dtype).size;
        const bound = Math.min(1, 5 * error * Math.sqrt(matrices));
        const distance = norm(found.map((value, i) => value - (expected[i] as number))) / norm(expected);
        expect(distance, dtype).toBeLessThan(bound);
        // And it is not what f32 gives; rows that make no blocks are f16.
        expect(distance, dtype).toBeGreaterThan(4e-5);
        for (const model of [stored, plain]) model.dispose();
      }
      arena.dispose();
      await golden.close();
    });
  });
});
