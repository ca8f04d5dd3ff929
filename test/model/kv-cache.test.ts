import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { align, type Backend } from "../../src/backend.js";
import type { ModelConfig } from "../../src/model/config.js";
import { KV_BLOCK, KVCache, type KVType } from "../../src/model/kv-cache.js";
import type { Model } from "../../src/model/model.js";
import type { KVTensors } from "../../src/ops/kv-append.js";
import { Tape } from "../../src/tape.js";
import { Arena, type Tensor } from "../../src/tensor.js";
import { BACKENDS } from "../backends.js";
import { maxDifference } from "../golden.js";
import { baseline, gpt2, llama, logitsOf, loudModel, mistral, randomIds } from "./tiny.js";

/** More positions than two blocks, so that a cache grows twice. */
const LENGTH = 2 * KV_BLOCK + 5;
const V = llama.vocabSize;
const long = (config: ModelConfig): ModelConfig => ({ ...config, contextLength: 200 });

const CONFIGS = [
  ["llama", long(llama)],
  ["mistral", long(mistral)],
  ["gpt2", long(gpt2)],
] as const;

describe.each(BACKENDS)("a cache on $name", ({ name, create, slack }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(() => backend.dispose());

  // A GPU of software takes its time.
  describe.each(name === "webgpu" ? CONFIGS.slice(0, 1) : CONFIGS)("%s", (_, config) => {
    const ids = randomIds(LENGTH, V);
    let model: Model;
    let full: Float32Array;
    beforeAll(async () => {
      model = await loudModel(backend, config);
      full = await logitsOf(model, ids);
    });
    afterAll(() => model.dispose());

    /** Logits of rows of the pass without a cache. */
    const rows = (from: number, to: number) => full.slice(from * V, to * V);

    it.each<[string, number[]]>([
      ["up to a border of a block, and token by token over it", [KV_BLOCK - 1, 1, 1, 1, 1]],
      ["over two borders at once", [3, 2 * KV_BLOCK]],
      ["block by block", [KV_BLOCK, KV_BLOCK, 5]],
      ["all at once", [LENGTH]],
    ])("gives the logits of a pass without it: %s", async (_, pieces) => {
      const cache = new KVCache(backend, config, 200);
      for (const piece of pieces) {
        const at = cache.length;
        const found = await logitsOf(model, ids.slice(at, at + piece), { cache });
        expect(maxDifference(found, rows(at, at + piece))).toBeLessThan(1e-5 * slack);
      }
      cache.dispose();
    });

    it("in f16 errs by its rounding, and goes on from what it holds", async () => {
      const cache = new KVCache(backend, config, 200, 1, { type: "f16" });
      const found: number[] = [];
      for (const piece of [KV_BLOCK - 2, 1, 3, LENGTH - KV_BLOCK - 2]) {
        found.push(...(await logitsOf(model, ids.slice(cache.length, cache.length + piece), { cache })));
      }
      // Keys and values are rounded by 2^-12 of themselves, and what comes of them moves by as much, in two layers.
      // The weights are loud: scores of several units, and a residual stream that a layer doubles.
      const error = maxDifference(found, full);
      const range = Math.max(...full) - Math.min(...full);
      expect(error).toBeLessThan(2 ** -8 * range);
      expect(error).toBeGreaterThan(2 ** -16 * range);
      cache.dispose();
    });

    it("cut back over a border and gone on with other ids", async () => {
      const cache = new KVCache(backend, config, 200);
      const other = randomIds(KV_BLOCK + 9, V, 3);
      await logitsOf(model, ids.slice(0, KV_BLOCK - 3), { cache });
      await logitsOf(model, other, { cache });
      cache.truncate(KV_BLOCK - 3);
      const found = await logitsOf(model, ids.slice(KV_BLOCK - 3), { cache });
      expect(maxDifference(found, rows(KV_BLOCK - 3, LENGTH))).toBeLessThan(1e-5 * slack);
      cache.dispose();
    });

    it("of sequences of different lengths gives each what it has alone", async () => {
      const other = randomIds(LENGTH, V, 5);
      const alone = await logitsOf(model, other);
      const cache = new KVCache(backend, config, 200, 3);
      // Padded on the right: 60, 7 and 1 ids.
      const lengths = [60, 7, 1];
      const first = [ids, other, ids].flatMap((each, i) =>
        Array.from({ length: 60 }, (_, t) => (t < (lengths[i] ?? 0) ? (each[t] ?? 0) : 0)),
      );
      await logitsOf(model, first, { cache, batch: 3, counts: lengths });
      expect(cache.lengths).toEqual(lengths);
      // Six more of each, one of them over a border.
      const next = [ids, other, ids].flatMap((each, i) => {
        const from = lengths[i] ?? 0;
        return each.slice(from, from + 6);
      });
      const found = await logitsOf(model, next, { cache, batch: 3 });
      const part = (i: number) => found.slice(i * 6 * V, (i + 1) * 6 * V);
      expect(maxDifference(part(0), rows(60, 66))).toBeLessThan(1e-5 * slack);
      expect(maxDifference(part(1), alone.slice(7 * V, 13 * V))).toBeLessThan(1e-5 * slack);
      expect(maxDifference(part(2), rows(1, 7))).toBeLessThan(1e-5 * slack);
      // Without the one in the middle, and the last cut back by three.
      cache.keep([0, 2]);
      cache.truncate(4, 1);
      expect(cache.lengths).toEqual([66, 4]);
      const pair = await logitsOf(model, [ids[66] ?? 0, ids[4] ?? 0], { cache, batch: 2 });
      expect(maxDifference(pair, [...rows(66, 67), ...rows(4, 5)])).toBeLessThan(1e-5 * slack);
      cache.dispose();
    });
  });

  it.each<[KVType]>([["f32"], ["f16"]])("holds what a list of rows holds, in %s", async (type) => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.array(operation, { maxLength: 8 }), (batch, list) =>
        compareWithLists(backend, type, batch, list),
      ),
      { numRuns: 15, seed: 1 },
    );
  });
});

type Operation =
  | { readonly kind: "append"; readonly counts: readonly number[] }
  | { readonly kind: "truncate"; readonly share: number; readonly sequence: number | undefined }
  | { readonly kind: "keep"; readonly which: readonly boolean[] };

const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("append" as const),
      counts: fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 3, maxLength: 3 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("truncate" as const),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      sequence: fc.option(fc.integer({ min: 0, max: 2 }), { nil: undefined }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("keep" as const),
      which: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
    }),
  },
);

/** Two layers of one head of two. */
const SMALL: ModelConfig = { ...llama, kvHeads: 1, headDim: 2, layers: 2, contextLength: 1000 };

/** Runs operations on a cache and on plain arrays, and compares all that is held after each appending. */
async function compareWithLists(
  backend: Backend,
  type: KVType,
  batch: number,
  operations: readonly Operation[],
): Promise<void> {
  const cache = new KVCache(backend, SMALL, 1000, batch, { type });
  const arena = new Arena(backend);
  let lists: number[][] = Array.from({ length: batch }, () => []);
  // Every number once in a while, and exact in f16.
  let next = 0;
  for (const each of operations) {
    if (each.kind === "truncate") {
      const sequence = each.sequence === undefined ? undefined : each.sequence % lists.length;
      const held = sequence === undefined ? cache.length : (lists[sequence]?.length ?? 0);
      const length = Math.floor(each.share * held);
      cache.truncate(length, sequence);
      for (const [i, list] of lists.entries()) {
        if (sequence === undefined || sequence === i) list.length = Math.min(list.length, length);
      }
    } else if (each.kind === "keep") {
      const kept = [...lists.keys()].filter((i) => each.which[i]);
      if (kept.length === 0) continue;
      cache.keep(kept);
      lists = kept.map((i) => lists[i] ?? []);
    } else {
      arena.reset();
      const counts = each.counts.slice(0, lists.length);
      const rows = Math.max(...counts);
      if (rows === 0) continue;
      const tape = new Tape(arena, false);
      const values = lists.map(() => Array.from({ length: rows }, () => 1 + (next++ % 2000)));
      cache.reserve(rows);
      const positions = tape.from(Uint32Array.from(cache.lengths));
      const held: KVTensors[] = [];
      for (let layer = 0; layer < SMALL.layers; layer++) {
        const tensor = (offset: number) =>
          tape.from(Float32Array.from(values.flat().flatMap((x) => [x + layer, -x - offset])), [
            lists.length,
            rows,
            1,
            2,
          ]);
        held.push(cache.append(tape, layer, tensor(0), tensor(1), positions));
      }
      cache.advance(counts);
      for (const [i, count] of counts.entries()) lists[i]?.push(...(values[i]?.slice(0, count) ?? []));
      for (const [layer, { k, v }] of held.entries()) {
        expect(await heldRows(k, lists)).toEqual(lists.map((l) => l.flatMap((x) => [x + layer, -x])));
        expect(await heldRows(v, lists)).toEqual(lists.map((l) => l.flatMap((x) => [x + layer, -x - 1])));
      }
    }
    expect(cache.lengths).toEqual(lists.map((list) => list.length));
  }
  cache.dispose();
  arena.dispose();
}

/** The first rows of every sequence. */
async function heldRows(tensor: Tensor, lists: readonly number[][]): Promise<number[][]> {
  const values = await tensor.read();
  const each = values.length / lists.length;
  return lists.map(({ length }, i) => Array.from(values.subarray(i * each, i * each + 2 * length)));
}

describe("the memory of a cache", () => {
  let backend: Backend;
  let model: Model;
  const config = long(llama);
  beforeAll(async () => {
    backend = await baseline();
    model = await loudModel(backend, config);
  });

  /** Bytes of two layers' keys and values, 2 heads of 4. */
  const bytes = (positions: number, size = 4) => 4 * align(positions * 2 * 4 * size);
  const held = () => backend.memory().uses.kvCache;

  it("is none at first, then a block, then half as much again as is needed", async () => {
    const cache = new KVCache(backend, { ...config, contextLength: 1e6 }, 1e6);
    expect(held()).toBe(0);
    cache.reserve(1);
    expect([held(), cache.byteLength]).toEqual([bytes(KV_BLOCK), bytes(KV_BLOCK)]);
    cache.advance(KV_BLOCK);
    const most: number[] = [];
    for (let length = KV_BLOCK; length < 3000; length++) {
      cache.reserve(1);
      cache.advance(1);
      most.push(held() / bytes(length + 1 + KV_BLOCK));
    }
    expect(Math.max(...most)).toBeLessThanOrEqual(1.5);
    cache.dispose();
    expect(held()).toBe(0);
  });

  it("is half in f16", () => {
    const cache = new KVCache(backend, config, 200, 1, { type: "f16" });
    cache.reserve(KV_BLOCK);
    expect([held(), cache.byteLength]).toEqual([bytes(KV_BLOCK, 2), bytes(KV_BLOCK, 2)]);
    cache.dispose();
  });

  it("is never more than its capacity, and can be had again after it was given back", async () => {
    const cache = new KVCache(backend, config, 70);
    const ids = randomIds(70, V);
    const expected = await logitsOf(model, ids);
    for (let turn = 0; turn < 2; turn++) {
      await logitsOf(model, ids.slice(0, 69), { cache });
      expect(held()).toBe(bytes(70));
      const found = await logitsOf(model, ids.slice(69), { cache });
      expect(maxDifference(found, expected.slice(-V))).toBeLessThan(1e-5);
      expect(() => cache.reserve(1)).toThrow(/71 positions, but the cache holds 70/);
      cache.dispose();
      expect([held(), cache.length]).toEqual([0, 0]);
    }
  });

  it("of a type that there is not is refused", () => {
    expect(() => new KVCache(backend, config, 9, 1, { type: "q8" as "f16" })).toThrow(
      /^kv cache: type must be one of f32, f16, got 'q8'/,
    );
    expect(() => new KVCache(backend, { ...config, headDim: 5 }, 9, 1, { type: "f16" })).toThrow(
      /f16 wants an even head_dim, the model has 5/,
    );
  });

  it.each([[[1]], [[1, 3]], [[-1, 1]], [[0.5, 1]]])(
    "counts of %j for two sequences of 2 are refused",
    async (counts) => {
      const cache = new KVCache(backend, config, 9, 2);
      await expect(logitsOf(model, [1, 2, 3, 4], { cache, batch: 2, counts })).rejects.toThrow(
        /^forward: counts must be 2 integers from 0 to 2/,
      );
      cache.dispose();
    },
  );
});
