import { describe, expect, it } from "vitest";
import { f16ToF32 } from "../../src/half.js";
import { Random } from "../../src/random.js";

/** The scripts of the competitors have no types, and they import what `npm run build` made. */
const load = (name: string) => import(new URL(`../../bench/peers/${name}`, import.meta.url).href);
const { toQ8_0, toQ4_0 }: Record<string, (values: Float32Array) => Uint8Array> = await load("quantise.mjs");
const { ggufFile, u32, f32, string, arrayOf } = await load("gguf.mjs");
const { interleaveHalves, llamaGguf } = await load("llama-gguf.mjs");

const block = (value: (i: number) => number) => Float32Array.from({ length: 32 }, (_, i) => value(i));
const scaleOf = (bytes: Uint8Array) =>
  f16ToF32(Uint16Array.of((bytes[0] ?? 0) | ((bytes[1] ?? 0) << 8)))[0] ?? Number.NaN;

describe("q8_0", () => {
  it("has the bytes that follow from the layout", () => {
    // The largest is 127 / 4, so d is 1/4 = 0x3400 and x = i - 16 is stored as 4 · (i - 16); 31.75 as 127.
    const bytes = toQ8_0?.(block((i) => (i === 31 ? 31.75 : i - 16)));
    const expected = Array.from({ length: 32 }, (_, i) => (i === 31 ? 127 : 4 * (i - 16)) & 255);
    expect([...(bytes ?? [])]).toEqual([0x00, 0x34, ...expected]);
  });

  it("rounds halves away from zero", () => {
    const bytes = toQ8_0?.(block((i) => [127, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5][i] ?? 0)) ?? [];
    expect([...Int8Array.from(bytes.slice(2, 9))]).toEqual([127, 1, -1, 2, -2, 3, -3]);
  });

  it("is within half a step of what was stored", () => {
    const random = new Random(1);
    const values = Float32Array.from({ length: 64 }, () => random.normal());
    const bytes = toQ8_0?.(values) ?? new Uint8Array();
    expect(bytes.length).toBe(68);
    for (const start of [0, 1]) {
      const own = bytes.subarray(34 * start, 34 * (start + 1));
      const d = scaleOf(own);
      const quants = new Int8Array(own.slice(2).buffer);
      for (const [i, q] of quants.entries()) {
        // Half a step, and what rounding d to 11 bits does to 127 of them.
        expect(Math.abs(d * q - (values[32 * start + i] ?? 0))).toBeLessThan(d * (0.5 + 127 * 2 ** -11));
      }
    }
  });

  it("stores zeros, and refuses half a block", () => {
    expect([...(toQ8_0?.(block(() => 0)) ?? [])]).toEqual(Array(34).fill(0));
    expect(() => toQ8_0?.(new Float32Array(48))).toThrow(RangeError);
  });
});

describe("q4_0", () => {
  it("has the bytes that follow from the layout", () => {
    // -8 is the extreme, so d is 1 = 0x3c00 and x is stored as x + 8: first half in low nibbles, second in high.
    const bytes = toQ4_0?.(block((i) => (i % 16) - 8)) ?? [];
    expect([...bytes]).toEqual([0x00, 0x3c, ...Array.from({ length: 16 }, (_, i) => i * 17)]);
  });

  it("keeps the halves of a block apart", () => {
    const bytes = toQ4_0?.(block((i) => (i < 16 ? -8 : 7))) ?? [];
    expect([...bytes]).toEqual([0x00, 0x3c, ...Array(16).fill(0xf0)]);
  });

  it("turns the scale where the extreme is positive, and clamps", () => {
    // 8 is the extreme: d is -1 = 0xbc00, 8 is stored as 0, -8 would be 16 and is 15.
    const bytes = toQ4_0?.(block((i) => (i === 0 ? 8 : i === 1 ? -7.9 : 0))) ?? [];
    expect([...bytes.slice(0, 5)]).toEqual([0x00, 0xbc, 0x80, 0x8f, 0x88]);
  });

  it("stores zeros as the middle", () => {
    // d is 0 / -8, whose sign is set.
    expect([...(toQ4_0?.(block(() => 0)) ?? [])]).toEqual([0x00, 0x80, ...Array(16).fill(0x88)]);
  });
});

/** Reads what `ggufFile` wrote, by the specification alone. */
function readGguf(file: Buffer) {
  let at = 0;
  /** Where the next so many bytes lie. */
  const take = (bytes: number) => {
    at += bytes;
    return at - bytes;
  };
  const u32At = () => file.readUInt32LE(take(4));
  const u64At = () => Number(file.readBigUInt64LE(take(8)));
  const textAt = () => {
    const length = u64At();
    const start = take(length);
    return file.toString("utf8", start, start + length);
  };
  const valueAt = (type: number): unknown => {
    if (type === 4) return u32At();
    if (type === 5) return file.readInt32LE(take(4));
    if (type === 6) return file.readFloatLE(take(4));
    if (type === 8) return textAt();
    expect(type).toBe(9);
    const element = u32At();
    return Array.from({ length: u64At() }, () => valueAt(element));
  };
  const magic = file.toString("latin1", take(4), at);
  const version = u32At();
  const [tensorCount, keyCount] = [u64At(), u64At()];
  const metadata = Object.fromEntries(Array.from({ length: keyCount }, () => [textAt(), valueAt(u32At())]));
  const tensors = Array.from({ length: tensorCount }, () => ({
    name: textAt(),
    dims: Array.from({ length: u32At() }, u64At),
    type: u32At(),
    offset: u64At(),
  }));
  const dataStart = Math.ceil(at / 32) * 32;
  return { magic, version, metadata, tensors, dataStart };
}

describe("a GGUF file", () => {
  it("is read back by the specification", () => {
    const [a, b] = [Float32Array.of(1, 2, 3, 4, 5, 6), new Uint8Array(34).fill(7)];
    const metadata = {
      ...{ "a.count": u32(7), "a.eps": f32(0.5), "a.name": string("né") },
      ...{ "a.names": arrayOf.strings(["x", ""]), "a.scores": arrayOf.floats([-1, 2]) },
      "a.types": arrayOf.integers([-3, 4]),
    };
    const file: Buffer = ggufFile(metadata, [
      { name: "a", shape: [2, 3], type: "f32", data: a },
      { name: "b", shape: [1, 32], type: "q8_0", data: b },
    ]);
    const { magic, version, metadata: found, tensors, dataStart } = readGguf(file);
    expect([magic, version]).toEqual(["GGUF", 3]);
    expect(found).toEqual({
      ...{ "a.count": 7, "a.eps": 0.5, "a.name": "né", "a.names": ["x", ""] },
      ...{ "a.scores": [-1, 2], "a.types": [-3, 4] },
    });
    // The second begins at the next multiple of 32 after 24 bytes.
    expect(tensors).toEqual([
      { name: "a", dims: [3, 2], type: 0, offset: 0 },
      { name: "b", dims: [32, 1], type: 8, offset: 32 },
    ]);
    expect(file.readFloatLE(dataStart + 20)).toBe(6);
    expect(file[dataStart + 32]).toBe(7);
    expect(file.length).toBe(dataStart + 32 + 64);
  });

  it("of a model has every weight, matrices in the asked type and norms in f32", () => {
    const { metadata, tensors } = readGguf(llamaGguf([32, 1, 2, 1, 64, 300, 4, 4], 16, "q4_0"));
    expect(metadata).toMatchObject({
      ...{ "general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 32 },
      ...{ "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1 },
    });
    expect(metadata["tokenizer.ggml.tokens"]).toHaveLength(300);
    const types = Object.fromEntries(tensors.map(({ name, dims, type }) => [name, [...dims, type]]));
    expect(types).toEqual({
      ...{ "token_embd.weight": [32, 300, 2], "output_norm.weight": [32, 0] },
      ...{ "blk.0.attn_norm.weight": [32, 0], "blk.0.ffn_norm.weight": [32, 0] },
      ...{ "blk.0.attn_q.weight": [32, 32, 2], "blk.0.attn_k.weight": [32, 16, 2] },
      ...{ "blk.0.attn_v.weight": [32, 16, 2], "blk.0.attn_output.weight": [32, 32, 2] },
      ...{ "blk.0.ffn_gate.weight": [32, 64, 2], "blk.0.ffn_up.weight": [32, 64, 2] },
      "blk.0.ffn_down.weight": [64, 32, 2],
    });
  });

  it("has the rows of each head in pairs", () => {
    // Two heads of 4 rows, one column: halves (0 1 | 2 3) become neighbours (0 2 1 3).
    const rows = Float32Array.of(0, 1, 2, 3, 10, 11, 12, 13);
    expect([...interleaveHalves(rows, 2, 4, 1)]).toEqual([0, 2, 1, 3, 10, 12, 11, 13]);
  });
});
