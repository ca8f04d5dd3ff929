import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { openModel } from "../../src/formats/load.js";
import type { ModelConfig } from "../../src/model/config.js";
import { weightShapes } from "../../src/model/config.js";
import { readValues } from "../../src/model/stored-weight.js";
import { StreamDecoder } from "../../src/tokenizer.js";
import { sharedMissing, sharedPath } from "../shared.js";

const folder = ["data", "models", "stories260K"];

type Weights = ReadonlyMap<string, Float32Array>;
type Cache = { keys: number[][]; values: number[][] }[];

function linear(weight: Float32Array, x: readonly number[]): number[] {
  return Array.from({ length: weight.length / x.length }, (_, row) =>
    x.reduce((sum, value, i) => sum + value * (weight[row * x.length + i] ?? 0), 0),
  );
}

function rmsnorm(x: readonly number[], weight: Float32Array, eps: number): number[] {
  const scale = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + eps);
  return x.map((value, i) => value * scale * (weight[i] ?? 0));
}

/** Half-split rotary positions, as the weights inside have them. */
function rotate(x: number[], position: number, headDim: number): number[] {
  const half = headDim / 2;
  const result = [...x];
  for (let head = 0; head < x.length; head += headDim) {
    for (let i = 0; i < half; i++) {
      const angle = position * 10000 ** (-i / half);
      const [a = 0, b = 0] = [x[head + i], x[head + half + i]];
      result[head + i] = a * Math.cos(angle) - b * Math.sin(angle);
      result[head + half + i] = a * Math.sin(angle) + b * Math.cos(angle);
    }
  }
  return result;
}

function attend(
  query: number[],
  keys: number[][],
  values: number[][],
  { heads, kvHeads, headDim }: ModelConfig,
) {
  return Array.from({ length: heads }, (_, head) => {
    const at = Math.floor((head * kvHeads) / heads) * headDim;
    const q = query.slice(head * headDim, (head + 1) * headDim);
    const scores = keys.map((key) =>
      Math.exp(q.reduce((sum, x, i) => sum + x * (key[at + i] ?? 0), 0) / Math.sqrt(headDim)),
    );
    const total = scores.reduce((a, b) => a + b, 0);
    return q.map((_, i) =>
      scores.reduce((sum, score, t) => sum + (score / total) * (values[t]?.[at + i] ?? 0), 0),
    );
  }).flat();
}

/** The plainest forward pass of one token, in float64: what the files mean, with no engine in between. */
function forward(
  weights: Weights,
  config: ModelConfig,
  cache: Cache,
  id: number,
  position: number,
): number[] {
  const w = (name: string) => weights.get(`${name}.weight`) ?? new Float32Array(0);
  const { hiddenSize: d, normEps } = config;
  let x = [...w("embed").subarray(id * d, (id + 1) * d)];
  const add = (y: number[]) => {
    x = x.map((value, i) => value + (y[i] ?? 0));
  };
  for (const [i, { keys, values }] of cache.entries()) {
    const layer = `layers.${i}`;
    const normed = rmsnorm(x, w(`${layer}.attention_norm`), normEps);
    keys.push(rotate(linear(w(`${layer}.k`), normed), position, config.headDim));
    values.push(linear(w(`${layer}.v`), normed));
    const query = rotate(linear(w(`${layer}.q`), normed), position, config.headDim);
    add(linear(w(`${layer}.output`), attend(query, keys, values, config)));
    const inner = rmsnorm(x, w(`${layer}.mlp_norm`), normEps);
    const gate = linear(w(`${layer}.gate`), inner);
    const up = linear(w(`${layer}.up`), inner);
    add(
      linear(
        w(`${layer}.down`),
        gate.map((g, j) => (g / (1 + Math.exp(-g))) * (up[j] ?? 0)),
      ),
    );
  }
  return linear(w(config.tied ? "embed" : "head"), rmsnorm(x, w("norm"), normEps));
}

describe.skipIf(sharedMissing(...folder))("stories260K", () => {
  const read = async () => {
    const model = await openModel(sharedPath(...folder, "stories260K.bin"));
    const tokens = (await readFile(sharedPath(...folder, "runc_greedy_tokens.txt"), "utf8"))
      .trim()
      .split("\n")
      .map(Number);
    return { model, tokens, text: await readFile(sharedPath(...folder, "runc_greedy_text.txt"), "utf8") };
  };

  test("the tokenizer lies beside it, and generation ends at BOS as in run.c", async () => {
    const { model } = await read();
    expect(model.config).toMatchObject({ architecture: "llama", bosId: 1, eosIds: [1, 2] });
    expect(model.tokenizer?.vocabSize).toBe(model.config.vocabSize);
    await model.close();
  });

  test("run.c's tokens are its text, at once and streamed, and the text its tokens", async () => {
    const { model, tokens, text } = await read();
    const { tokenizer } = model;
    if (!tokenizer) throw new Error("no tokenizer");
    // The text goes on for the token that the last row of logits gives.
    const decoded = tokenizer.decode(tokens);
    expect(text.slice(0, decoded.length)).toBe(decoded);
    expect(text.length - decoded.length).toBeLessThan(20);
    const decoder = new StreamDecoder(tokenizer, 1);
    const streamed = tokens.slice(1).map((id) => decoder.push(id));
    expect(`${streamed.join("")}${decoder.flush()}`).toBe(decoded);
    expect([1, ...tokenizer.encode(decoded)]).toEqual(tokens);
    await model.close();
  });

  test("run.c's logits and greedy tokens follow from the weights", async () => {
    const { model, tokens } = await read();
    const { config } = model;
    const weights = new Map<string, Float32Array>();
    for (const name of weightShapes(config).keys()) weights.set(name, await readValues(model.weight(name)));
    const bytes = await readFile(sharedPath(...folder, "runc_greedy_logits.f32"));
    const golden = new Float32Array(
      bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
    );

    const cache: Cache = Array.from({ length: config.layers }, () => ({ keys: [], values: [] }));
    let worst = 0;
    for (const [position, id] of tokens.entries()) {
      const logits = forward(weights, config, cache, id, position);
      logits.forEach((value, i) => {
        worst = Math.max(worst, Math.abs(value - (golden[position * config.vocabSize + i] ?? Number.NaN)));
      });
      const next = logits.indexOf(Math.max(...logits));
      if (position + 1 < tokens.length) expect(next, `token ${position + 1}`).toBe(tokens[position + 1]);
    }
    expect(worst).toBeLessThan(1e-4);
    await model.close();
  });
});
