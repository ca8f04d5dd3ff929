import { describe, expect, it } from "vitest";
import { encode } from "../../src/dtype.js";
import type { RowValues } from "../../src/model/adapter.js";
import { type ModelConfig, weightShapes } from "../../src/model/config.js";
import { encodedWeight } from "../../src/model/encoded-weight.js";
import { mergeChanges, type WeightSource } from "../../src/model/merge.js";
import { pieces, readValues, type StoredWeight, weightOfValues } from "../../src/model/stored-weight.js";
import { Random } from "../../src/random.js";
import { sizeOf } from "../../src/tensor.js";
import { concatenate } from "../formats/helpers.js";
import { maxDifference } from "../golden.js";
import { llama, mistral } from "./tiny.js";

const random = new Random(3);
const noise = (length: number) => Float32Array.from({ length }, () => random.normal());

/** Values of every weight, and a source that gives them in rows. */
function sourceOf(config: ModelConfig): WeightSource & { values: Map<string, Float32Array> } {
  const values = new Map([...weightShapes(config)].map(([name, shape]) => [name, noise(sizeOf(shape))]));
  return {
    config,
    values,
    weight: (name) => inRows(weightShapes(config).get(name) ?? [], values.get(name) ?? new Float32Array(0)),
  };
}

/** A weight that is read by rows, as those of files are. */
function inRows(shape: readonly number[], values: Float32Array): StoredWeight {
  const width = sizeOf(shape.slice(1));
  return {
    shape,
    dtype: "f32",
    rowsTogether: 1,
    async read(first, rows, into) {
      into.set(new Uint8Array(values.slice(first * width, (first + rows) * width).buffer));
    },
  };
}

/** W + scale · B · A by the definition, in float64. */
function plainMerge(
  w: Float32Array,
  a: Float32Array,
  b: Float32Array,
  scale: number,
  width: number,
): number[] {
  const rank = a.length / width;
  return Array.from(w, (value, i) => {
    const [row, col] = [Math.floor(i / width), i % width];
    let product = 0;
    for (let k = 0; k < rank; k++) product += (b[row * rank + k] ?? 0) * (a[k * width + col] ?? 0);
    return value + scale * product;
  });
}

describe("a merged model", () => {
  const lora = (out: number, width: number) => ({ a: noise(3 * width), b: noise(3 * out), scale: 0.7 });

  it("has the low-rank additions in its weights, read whole or by rows", async () => {
    const base = sourceOf(llama);
    const addition = lora(20, 16);
    const merged = mergeChanges(base, { lora: new Map([["layers.1.up", addition]]), rows: null });
    const weight = merged.weight("layers.1.up.weight");
    const expected = plainMerge(
      base.values.get("layers.1.up.weight") as Float32Array,
      addition.a,
      addition.b,
      addition.scale,
      16,
    );
    // Half a unit in the last place of a sum below 16.
    expect(maxDifference(await readValues(weight), expected)).toBeLessThan(16 * 2 ** -24);
    const bytes = new Uint8Array(3 * 16 * 4);
    await weight.read(5, 3, bytes);
    expect(new Float32Array(bytes.buffer)).toEqual((await readValues(weight)).slice(5 * 16, 8 * 16));
    // What nothing changes is handed on as it is.
    for (const name of ["layers.0.up.weight", "norm.weight", "embed.weight"]) {
      expect(await readValues(merged.weight(name)), name).toEqual(base.values.get(name));
    }
    expect(merged.config).toEqual(llama);
  });

  it.each([
    ["appended and replaced", [19, 4, 20], 21],
    ["replaced only", [18, 0], 19],
  ])("has rows of the vocabulary %s in embedding and head", async (_, ids, vocabSize) => {
    const base = sourceOf(mistral);
    const rows: RowValues = { ids, input: noise(ids.length * 16), output: noise(ids.length * 16) };
    const merged = mergeChanges(base, { lora: new Map(), rows });
    expect(merged.config.vocabSize).toBe(vocabSize);
    for (const [name, values] of [
      ["embed.weight", rows.input],
      ["head.weight", rows.output],
    ] as const) {
      const expected = new Float32Array(vocabSize * 16);
      expected.set(base.values.get(name) as Float32Array);
      for (const [i, id] of ids.entries()) expected.set(values.slice(i * 16, (i + 1) * 16), id * 16);
      const weight = merged.weight(name);
      expect(weight.shape).toEqual([vocabSize, 16]);
      expect(await readValues(weight)).toEqual(expected);
    }
  });

  it("appends to a table that can be read as a whole only", async () => {
    for (const vocabSize of [18, 19]) {
      const config = { ...llama, vocabSize };
      const table = noise(vocabSize * 16);
      const whole = weightOfValues([vocabSize, 16], async () => table);
      const rows = { ids: [vocabSize], input: noise(16), output: noise(16) };
      const merged = mergeChanges({ config, weight: () => whole }, { lora: new Map(), rows });
      const expected = Float32Array.from([...table, ...rows.input]);
      expect(await readValues(merged.weight("embed.weight"))).toEqual(expected);
    }
  });
});

describe("a weight as bytes", () => {
  it("is cut into pieces, and stays as it is where it has the type", async () => {
    // Over two pieces of 4 MiB.
    const values = noise(2200 * 1024);
    const weight = inRows([2200, 1024], values);
    expect([...pieces(weight)].length).toBeGreaterThan(1);
    const f32 = await concatenate(encodedWeight(weight, "f32"));
    expect(Buffer.compare(f32, new Uint8Array(values.buffer))).toBe(0);
    for (const type of ["bf16", "q8_0"] as const) {
      expect(Buffer.compare(await concatenate(encodedWeight(weight, type)), encode(type, values)), type).toBe(
        0,
      );
    }
    const stored: StoredWeight = {
      shape: [4, 32],
      dtype: "q4_0",
      rowsTogether: 1,
      read: async (first, rows, into) => into.set(new Uint8Array(rows * 18).fill(first + 1)) as undefined,
    };
    expect(await concatenate(encodedWeight(stored, "q4_0"))).toEqual(Buffer.alloc(72, 1));
  });

  it("is refused where the type cannot hold it", async () => {
    const weight = inRows([1, 2], Float32Array.of(1, 1e6));
    await expect(concatenate(encodedWeight(weight, "f16"))).rejects.toThrow(RangeError);
  });
});
