import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { toCorpus } from "../../src/train/corpus.js";
import { heldOutLoss } from "../../src/train/held-out.js";
import { referenceLogits, referenceOf, softmax } from "../model/reference.js";
import { baseline, llama, loudModel } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const [bos, eos] = [256, 257];
const config = { ...llama, vocabSize: 258, contextLength: 8 };

describe("the held-out loss", () => {
  it.each([
    ["shorter than a window", ["é"], 3],
    ["of whole windows", ["abcde", "fghijk"], 2],
    ["of windows and a rest, in batches and a rest", ["the cat sat.", "a", "the dog sat on the log."], 2],
  ])("of a text %s is that of the reference, each token predicted once", async (_, texts, batch) => {
    const model = await loudModel(backend, config);
    const reference = await referenceOf(model);
    const documents = texts.map((text) => ({ text, name: text }));
    const corpus = toCorpus(byteTokenizer(), documents, bos, eos);
    const ids = [...corpus.ids];
    let nats = 0;
    let count = 0;
    for (let from = 0; from + 1 < ids.length; from += 7) {
      const window = ids.slice(from, from + 8);
      const logits = referenceLogits(reference, window);
      for (let t = 0; t + 1 < window.length; t++, count++)
        nats -= Math.log(softmax(logits[t] ?? [])[window[t + 1] ?? 0] ?? 0);
    }
    expect(count).toBe(ids.length - 1);
    const { used } = backend.memory();
    const found = await heldOutLoss(model, corpus, batch);
    // f32 against f64, over a model of two layers.
    expect(found.loss).toBeCloseTo(nats / count, 5);
    const bytes = Buffer.byteLength(texts.join(""));
    expect(found.bitsPerByte).toBeCloseTo(nats / Math.log(2) / bytes, 5);
    expect(backend.memory().used).toBe(used);
    model.dispose();
  });
});
