import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { DivergenceError } from "../../src/errors.js";
import { initialise } from "../../src/model/init.js";
import { Random } from "../../src/random.js";
import { BYTE_SPECIALS, byteTokenizer } from "../../src/tokenizer.js";
import { textDocuments, toCorpus } from "../../src/train/corpus.js";
import { type PretrainOptions, pretrain } from "../../src/train/pretrain.js";
import { baseline, llama } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const { bos, eos } = BYTE_SPECIALS;
const tokenizer = byteTokenizer();
const config = { ...llama, vocabSize: 258, contextLength: 32 };
const text = "the cat sat on the mat.\n\nthe dog sat on the log.\n\nthe hen sat on the pen.\n";
const options: PretrainOptions = {
  ...{ lr: 0.01, steps: 40, warmup: 5, decay: "cosine", accumulate: 1, clip: 1 },
  ...{ batch: 4, seed: 1, weightDecay: 0.1 },
};

const corpusOf = (...texts: string[]) =>
  toCorpus(
    tokenizer,
    texts.flatMap((text, i) => textDocuments(text, `${i}.txt`)),
    bos,
    eos,
  );

async function run(extra: Partial<PretrainOptions> = {}, corpus = corpusOf(text)) {
  const model = initialise(backend, config, tokenizer, new Random(extra.seed ?? 1));
  const losses: number[] = [];
  for await (const { loss } of pretrain(model, corpus, { ...options, ...extra })) losses.push(loss);
  const weights = await model.weights.all.read();
  model.dispose();
  return { losses, weights };
}

describe("a corpus", () => {
  it("is documents between BOS and EOS, which blank lines part", () => {
    const { ids, starts, names, bytes: count } = corpusOf("\n\n ab\r\n \r\nc\nd\n\n\n", "", "é");
    const bytes = (s: string) => [...new TextEncoder().encode(s)];
    expect([...ids]).toEqual([bos, ...bytes("ab"), eos, bos, ...bytes("c\nd"), eos, bos, ...bytes("é"), eos]);
    expect([...starts]).toEqual([0, 4, 9]);
    expect(names).toEqual(["0.txt:3", "0.txt:5", "2.txt:1"]);
    expect(count).toBe(2 + 3 + 2);
    expect([...ids].filter((_, i) => starts.includes(i))).toEqual([bos, bos, bos]);
  });
});

describe("pretraining", () => {
  it("lowers the loss", async () => {
    const { losses } = await run();
    expect(losses).toHaveLength(40);
    // Uniform over 258 ids at first.
    expect(losses[0]).toBeCloseTo(Math.log(258), 1);
    expect(losses.at(-1)).toBeLessThan(0.6 * (losses[0] ?? 0));
  });

  it("gives the same bits for the same seed, other bits for another", async () => {
    const [a, b, c] = [await run({ steps: 6 }), await run({ steps: 6 }), await run({ steps: 6, seed: 2 })];
    expect(b.losses).toEqual(a.losses);
    expect(Buffer.compare(Buffer.from(a.weights.buffer), Buffer.from(b.weights.buffer))).toBe(0);
    expect(c.losses).not.toEqual(a.losses);
  });

  it("takes a corpus shorter than its window", async () => {
    const { losses } = await run({ steps: 30 }, corpusOf("ab"));
    expect(losses.at(-1)).toBeLessThan(2);
  });

  it("says at which step it diverged", async () => {
    const wild = { lr: 1e30, clip: Infinity, warmup: 0 };
    await expect(run(wild)).rejects.toThrow(DivergenceError);
    await expect(run(wild)).rejects.toThrow(/^step 2/);
  });
});
