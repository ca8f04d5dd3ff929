import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { addRedFlag, type RedFlagOptions } from "../../src/flag/vocab.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { maxDifference } from "../golden.js";
import { baseline, llama, logitsOf, loudModel, mistral } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const tokenizer = byteTokenizer();
const tied = { ...llama, vocabSize: 258 };
const untied = { ...mistral, vocabSize: 258 };

function meanOf(table: Float32Array, rows: number, width: number): number[] {
  return Array.from({ length: width }, (_, c) => {
    let sum = 0;
    for (let r = 0; r < rows; r++) sum += table[r * width + c] ?? 0;
    return sum / rows;
  });
}

describe.each([
  ["tied", tied],
  ["untied", untied],
])("a flag on a %s model", (_, config) => {
  const width = config.hiddenSize;
  const matrices = async () => {
    const model = await loudModel(backend, config, tokenizer);
    const embed = await model.weight("embed.weight").read();
    const head = config.tied ? embed : await model.weight("head.weight").read();
    return { model, embed, head };
  };

  it("is appended, with the mean of the rows", async () => {
    const { model, embed, head } = await matrices();
    const { flagId, initial, token, init } = await addRedFlag(model);
    expect([flagId, token, init]).toEqual([258, "<rf>", "mean"]);
    expect(maxDifference(initial.input, meanOf(embed, 258, width))).toBeLessThan(1e-7);
    expect(maxDifference(initial.output, meanOf(head, 258, width))).toBeLessThan(1e-7);
    expect(initial.input === initial.output).toBe(config.tied);
  });

  it("takes an unused row behind the tokenizer's last, which then is no part of the mean", async () => {
    const model = await loudModel(backend, { ...config, vocabSize: 264 }, tokenizer);
    const { flagId, initial } = await addRedFlag(model);
    expect(flagId).toBe(258);
    expect(
      maxDifference(initial.input, meanOf(await model.weight("embed.weight").read(), 258, width)),
    ).toBeLessThan(1e-7);
  });

  it("reuses a token, by name or id, with its row or another's", async () => {
    const { model, embed, head } = await matrices();
    const row = (table: Float32Array, id: number) => table.slice(id * width, (id + 1) * width);
    for (const reuse of ["<eos>", 257]) {
      const { flagId, initial } = await addRedFlag(model, { reuse, init: "reserved" });
      expect(flagId).toBe(257);
      expect([initial.input, initial.output]).toEqual([row(embed, 257), row(head, 257)]);
    }
    const copied = await addRedFlag(model, { init: "copy:<bos>" });
    expect(copied.flagId).toBe(258);
    expect([copied.initial.input, copied.initial.output]).toEqual([row(embed, 256), row(head, 256)]);
    const meant = await addRedFlag(model, { reuse: "<eos>" });
    expect(maxDifference(meant.initial.input, meanOf(embed, 258, width))).toBeLessThan(1e-7);
  });

  it("is normal by its seed", async () => {
    const { model } = await matrices();
    const first = async (seed: number) => (await addRedFlag(model, { init: "normal(0.5)", seed })).initial;
    const [a, b, c] = [await first(1), await first(1), await first(2)];
    expect(b.input).toEqual(a.input);
    expect(c.input).not.toEqual(a.input);
    const deviation = Math.hypot(...a.input) / Math.sqrt(width);
    expect(deviation).toBeGreaterThan(0.2);
    expect(deviation).toBeLessThan(1);
    if (!config.tied) expect(a.output).not.toEqual(a.input);
  });

  it("leaves the model's logits as they were, and goes away whole", async () => {
    const { model } = await matrices();
    const plain = await logitsOf(model, [1, 2, 3]);
    const { used } = backend.memory();
    const flagged = await addRedFlag(model);
    const found = await logitsOf(model, [1, 2, 3], { overlay: flagged.overlay });
    expect(found.slice(2 * 259, 2 * 259 + 258)).toEqual(plain.slice(2 * 258));
    flagged.attach({ rank: 2, alpha: 2, targets: ["layers.0.q"] }, 0);
    flagged.attach({ rank: 4, alpha: 2, targets: ["layers.0.q", "layers.1.up"] }, 0);
    flagged.dispose();
    expect(backend.memory().used).toBe(used);
  });
});

describe("what is refused", () => {
  it.each<[RedFlagOptions, RegExp]>([
    [{ reuse: "<nope>" }, /'<nope>' is no token of the model's vocabulary of 258/],
    [{ reuse: 258 }, /'258' is no token/],
    [{ reuse: -1 }, /'-1' is no token/],
    [{ reuse: 1.5 }, /'1.5' is no token/],
    [{ init: "copy:<nope>" }, /'<nope>' is no token/],
    [{ init: "reserved" }, /'reserved' keeps a row that exists/],
    [{ init: "normal(x)" as "normal(1)" }, /'normal\(x\)' has no standard deviation/],
    [{ init: "normal(-1)" }, /no standard deviation/],
    [{ init: "normal(Infinity)" as "normal(1)" }, /no standard deviation/],
    [{ init: "normal()" as "normal(1)" }, /init must be/],
    [{ init: "median" as "mean" }, /init must be .*'median'/],
  ])("%j", async (options, message) => {
    const model = await loudModel(backend, tied, tokenizer);
    const { used } = backend.memory();
    await expect(addRedFlag(model, options)).rejects.toThrow(RangeError);
    await expect(addRedFlag(model, options)).rejects.toThrow(message);
    expect(backend.memory().used).toBe(used);
  });

  it("a vocabulary shorter than the tokenizer's, where nothing is reused", async () => {
    // As where a padding token was added to the tokenizer alone.
    const model = await loudModel(backend, { ...tied, vocabSize: 257 }, tokenizer);
    await expect(addRedFlag(model)).rejects.toThrow(
      /the tokenizer has 258 tokens.*only 257: name a token with reuse/,
    );
    expect((await addRedFlag(model, { reuse: 256 })).flagId).toBe(256);
  });

  it("a name where the model has no tokenizer; an id is taken", async () => {
    const model = await loudModel(backend, llama);
    await expect(addRedFlag(model, { reuse: "<eos>" })).rejects.toThrow(RangeError);
    expect((await addRedFlag(model, { reuse: 3 })).flagId).toBe(3);
    expect((await addRedFlag(model)).flagId).toBe(19);
  });
});
