import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { openFiles } from "../../src/formats/files.js";
import { toHuggingFaceName, transpose } from "../../src/formats/hf-names.js";
import { loadModel } from "../../src/formats/load-model.js";
import { decode } from "../../src/generate/decode.js";
import { GREEDY } from "../../src/generate/sample.js";
import { forward, head } from "../../src/model/forward.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { languageLoss } from "../../src/train/language.js";
import { AdamW } from "../../src/train/optimiser.js";
import { BACKENDS } from "../backends.js";
import { maxDifference, readGolden, relativeDifference } from "../golden.js";
import { sharedMissing, sharedPath } from "../shared.js";

/** Architectures that load so far. */
const ARCHITECTURES = ["llama", "gpt2", "mistral", "phi3", "qwen2", "qwen3"];

describe.skipIf(sharedMissing("golden"))("golden values of PyTorch", () => {
  describe.each(BACKENDS)("on $name", ({ create, slack }) => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await create();
    });
    afterAll(() => backend?.dispose());

    it.each(ARCHITECTURES)("%s: logits, loss, gradients, greedy tokens", async (name) => {
      const folder = sharedPath("golden", name);
      const golden = await readGolden(`${folder}/golden.safetensors`);
      const facts = JSON.parse(await (await openFiles(folder)).text("golden.json"));
      const model = await loadModel(folder, { backend });
      const ids = await golden.integers("input_ids");
      const arena = new Arena(backend);

      const logits = head(
        new Tape(arena, false),
        model,
        forward(new Tape(arena, false), model, ids, { batch: 2 }),
      );
      expect(maxDifference(await logits.read(), await golden.floats("logits"))).toBeLessThan(1e-4 * slack);

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
});
