import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import type { ModelConfig, RopeScaling } from "../../src/model/config.js";
import { forward } from "../../src/model/forward.js";
import { KVCache } from "../../src/model/kv-cache.js";
import type { Model } from "../../src/model/model.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { BACKENDS } from "../backends.js";
import { maxDifference } from "../golden.js";
import { referenceLogits, referenceOf } from "./reference.js";
import {
  ALL_CONFIGS,
  baseline,
  gpt2,
  llama,
  logitsOf,
  loudModel,
  mistral,
  phi3,
  qwen2,
  randomIds,
} from "./tiny.js";

/** Ramps over the pairs of a head of 16, theta 100, original context 8. */
const yarn = { betaFast: 1, betaSlow: 0.1, attentionFactor: 1.1 };

const WASM = BACKENDS.filter(({ name }) => name.startsWith("wasm"));

describe.each(WASM)("forward on $name", ({ create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(() => backend.dispose());

  describe.each(ALL_CONFIGS)("%s", (_, config) => {
    const ids = randomIds(11, config.vocabSize);
    // Parts of it are rotated as the whole is.
    const sequenceLength = ids.length;
    let model: Model;
    let full: Float32Array;
    beforeAll(async () => {
      model = await loudModel(backend, config);
      full = await logitsOf(model, ids);
    });
    afterAll(() => model.dispose());

    it("is the formulas' in float64", async () => {
      const expected = referenceLogits(await referenceOf(model), ids).flat();
      // Logits that differ from each other: else nothing would be compared.
      expect(Math.max(...expected) - Math.min(...expected)).toBeGreaterThan(1);
      expect(maxDifference(full, expected)).toBeLessThan(2e-5);
    });

    it.each([[[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], [[5, 1, 1, 4]], [[1, 9, 1]], [[11]]])(
      "over a cache in pieces of %j",
      async (pieces) => {
        const cache = new KVCache(backend, config, ids.length);
        const found: number[] = [];
        for (const piece of pieces) {
          const part = ids.slice(cache.length, cache.length + piece);
          found.push(...(await logitsOf(model, part, { cache, sequenceLength })));
        }
        expect(cache.length).toBe(ids.length);
        expect(maxDifference(found, full)).toBeLessThan(1e-5);
        cache.dispose();
      },
    );

    it("of a batch over a cache that was cut, in pieces", async () => {
      const cache = new KVCache(backend, config, ids.length, 2);
      const other = ids.map((id) => (id + 5) % config.vocabSize);
      const both = (from: number, to: number) => [...ids.slice(from, to), ...other.slice(from, to)];
      await logitsOf(model, both(0, 4), { cache, batch: 2, sequenceLength });
      await logitsOf(model, both(1, 3), { cache, batch: 2, sequenceLength });
      cache.truncate(4);
      const found = await logitsOf(model, both(4, ids.length), { cache, batch: 2, sequenceLength });
      const alone = await logitsOf(model, other);
      const rest = (ids.length - 4) * config.vocabSize;
      expect(maxDifference(found.slice(0, rest), full.slice(-rest))).toBeLessThan(1e-5);
      expect(maxDifference(found.slice(rest), alone.slice(-rest))).toBeLessThan(1e-5);
      cache.dispose();
    });

    it("over a cache that was cut and went on with other ids", async () => {
      const cache = new KVCache(backend, config, ids.length);
      await logitsOf(model, ids.slice(0, 5), { cache, sequenceLength });
      await logitsOf(model, [3, 3, 3], { cache, sequenceLength });
      cache.truncate(5);
      const found = await logitsOf(model, ids.slice(5), { cache, sequenceLength });
      expect(maxDifference(found, full.subarray(5 * config.vocabSize))).toBeLessThan(1e-5);
      cache.dispose();
    });

    it("does not mix the sequences of a batch, and ignores padding on the right", async () => {
      const other = randomIds(11, config.vocabSize, 8);
      const padded = [...other.slice(0, 6), 0, 0, 0, 0, 0];
      const found = await logitsOf(model, [...ids, ...padded], { batch: 2 });
      const alone = await logitsOf(model, other.slice(0, 6), { sequenceLength });
      expect(maxDifference(found.subarray(0, full.length), full)).toBeLessThan(1e-5);
      const second = found.subarray(full.length, full.length + alone.length);
      expect(maxDifference(second, alone)).toBeLessThan(1e-5);
    });
  });
});

describe("rotary scalings, within the original context of 8 and past it", () => {
  const original = { factor: 3, originalContextLength: 8 };
  const [head4, wide] = [llama, { ...llama, headDim: 16 }];
  it.each<[string, ModelConfig, RopeScaling]>([
    ["linear", head4, { kind: "linear", factor: 3 }],
    ["dynamic", head4, { kind: "dynamic", ...original }],
    // The slow waves fit less than once into 8 positions, the fast ones more than twice.
    ["llama3", wide, { kind: "llama3", ...original, lowFreqFactor: 0.2, highFreqFactor: 1 }],
    ["yarn", wide, { kind: "yarn", ...original, ...yarn, truncate: true }],
    ["yarn between pairs", wide, { kind: "yarn", ...original, ...yarn, truncate: false }],
    [
      "longrope",
      head4,
      { kind: "longrope", ...original, shortFactors: [1, 2], longFactors: [3, 5], attentionFactor: 1.1 },
    ],
  ])("%s", async (_, config, scaling) => {
    const backend = await baseline();
    const position = { kind: "rope", theta: 100, scaling } as const;
    const model = await loudModel(backend, { ...config, position });
    const plain = { ...config, position: { ...position, scaling: { kind: "none" } } } as const;
    const reference = await referenceOf(model);
    for (const length of [5, 8, 9, 15]) {
      const ids = randomIds(length, config.vocabSize);
      const found = await logitsOf(model, ids);
      expect(maxDifference(found, referenceLogits(reference, ids).flat()), `${length}`).toBeLessThan(2e-5);
      // It does something, where it should.
      const unscaled = referenceLogits({ ...reference, config: plain }, ids).flat();
      const isOff = scaling.kind === "dynamic" && length <= 8;
      expect(maxDifference(found, unscaled) > 1e-3, `${length}`).toBe(!isOff);
    }
    model.dispose();
  });
});

describe("LongRoPE over a cache", () => {
  it("leaves keys as they were turned when a sequence outgrows the original context", async () => {
    const backend = await baseline();
    const model = await loudModel(backend, phi3);
    const ids = randomIds(11, phi3.vocabSize);
    const [first, rest] = [ids.slice(0, 8), ids.slice(8)];
    const over = async (sequenceLength?: number) => {
      const cache = new KVCache(backend, phi3, ids.length);
      await logitsOf(model, first, { cache, ...(sequenceLength && { sequenceLength }) });
      const found = await logitsOf(model, rest, { cache });
      cache.dispose();
      return found;
    };
    const whole = (await logitsOf(model, ids)).slice(-rest.length * phi3.vocabSize);
    expect(maxDifference(await over(), whole)).toBeGreaterThan(1e-2);
    // Who knows the length beforehand turns them for it.
    expect(maxDifference(await over(ids.length), whole)).toBeLessThan(1e-5);
    model.dispose();
  });
});

describe("a window", () => {
  it("is that of some layers only", async () => {
    const backend = await baseline();
    const model = await loudModel(backend, qwen2);
    const last = async (ids: number[]) => (await logitsOf(model, ids)).slice(-qwen2.vocabSize);
    const [a, b] = [await last([1, 2, 3, 4, 5, 6, 7, 8]), await last([9, 2, 3, 4, 5, 6, 7, 8])];
    // Two layers with windows of 4 would see 7 positions, the first not among them.
    expect(maxDifference(a, b)).toBeGreaterThan(1e-3);
    const narrow = await loudModel(backend, { ...qwen2, fullAttentionLayers: [] });
    const lastOf = async (ids: number[]) => (await logitsOf(narrow, ids)).slice(-qwen2.vocabSize);
    expect(
      maxDifference(await lastOf([1, 2, 3, 4, 5, 6, 7, 8]), await lastOf([9, 2, 3, 4, 5, 6, 7, 8])),
    ).toBeLessThan(1e-5);
    for (const each of [model, narrow]) each.dispose();
  });

  it("hides what lies before it", async () => {
    const backend = await baseline();
    const one = { ...mistral, layers: 1 };
    const model = await loudModel(backend, one);
    const last = async (ids: number[]) => (await logitsOf(model, ids)).slice(-one.vocabSize);
    const [a, b] = [await last([1, 2, 3, 4, 5]), await last([9, 8, 3, 4, 5])];
    expect(maxDifference(a, b)).toBeLessThan(1e-5);
    expect(maxDifference(a, await last([1, 2, 7, 4, 5]))).toBeGreaterThan(1e-3);
  });
});

describe("what forward refuses", () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await baseline();
  });

  const attempt = (model: Model, ids: ArrayLike<number>, options = {}) =>
    forward(new Tape(new Arena(backend, 1 << 16), false), model, ids, options);

  it.each([
    ["an id past the vocabulary", [1, 19], {}, /token id 19 is outside the vocabulary of 19/],
    ["a negative id", [-1], {}, /token id -1 /],
    ["an id that is no integer", [1.5], {}, /token id 1.5 /],
    ["NaN", [Number.NaN], {}, /token id NaN /],
    ["no ids", [], {}, /0 ids do not make 1 sequences/],
    ["more than the context", randomIds(25, 19), {}, /25 positions, but the model's context has 24/],
    ["a batch that does not divide", [1, 2, 3], { batch: 2 }, /3 ids do not make 2 sequences/],
    ["a batch of none", [1], { batch: 0 }, /do not make 0 sequences/],
  ])("%s", async (_, ids, options, message) => {
    const model = await loudModel(backend, llama);
    expect(() => attempt(model, ids, options)).toThrow(RangeError);
    expect(() => attempt(model, ids, options)).toThrow(message);
    model.dispose();
  });

  it.each([
    ["llama", llama],
    ["gpt2", gpt2],
  ])("%s: a batch over a cache, and more than context or cache hold", async (_, config) => {
    const model = await loudModel(backend, config);
    const cache = new KVCache(backend, config, 6);
    expect(() => attempt(model, [1, 2], { cache, batch: 2 })).toThrow(
      /cache holds 1 sequences, got a batch of 2/,
    );
    attempt(model, [1, 2, 3, 4], { cache });
    expect(() => attempt(model, [5, 6, 7], { cache })).toThrow(/7 positions, but the cache holds 6/);
    // The refusal left the cache as it was.
    expect(cache.length).toBe(4);
    attempt(model, [5, 6], { cache });
    const wide = new KVCache(backend, config, 100);
    attempt(model, randomIds(24, 19), { cache: wide });
    expect(() => attempt(model, [1], { cache: wide })).toThrow(
      /25 positions, but the model's context has 24/,
    );
    expect(() => cache.truncate(7)).toThrow(RangeError);
    expect(() => cache.truncate(-1)).toThrow(RangeError);
    model.dispose();
  });
});
