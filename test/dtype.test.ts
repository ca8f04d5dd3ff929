import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytesOf, decode, encode, type StorageType, storageCode } from "../src/dtype.js";

const TYPES: readonly StorageType[] = ["f16", "bf16", "q8_0", "q4_0"];
const BLOCKS: readonly StorageType[] = ["q8_0", "q4_0"];

/** One to three blocks of values that every type has room for, of all magnitudes. */
const blocks = fc
  .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: -20, max: 10 }))
  .chain(([count, exponent]) =>
    fc
      .float32Array({ minLength: 32 * count, maxLength: 32 * count, min: -1, max: 1, noNaN: true })
      .map((values) => values.map((value) => value * 2 ** exponent)),
  );

function largestOf(values: Float32Array, index: number): number {
  const start = index - (index % 32);
  return Math.max(...values.subarray(start, start + 32).map(Math.abs));
}

/** The largest error that each type may make, from its definition; `largest`: of the block. */
const ERROR: Readonly<Record<StorageType, (value: number, largest: number) => number>> = {
  // Half a unit in the last place: 2^-11 of a normal number, 2^-25 where it is subnormal.
  f16: (value) => Math.max(Math.abs(value) * 2 ** -11, 2 ** -25),
  bf16: (value) => Math.max(Math.abs(value) * 2 ** -8, 2 ** -134),
  // Half a unit of d, and 127 units of which each errs by the rounding of d to f16.
  q8_0: (_, largest) => largest / 254 + 127 * ERROR.f16(largest / 127, 0) + 1e-6 * largest,
  // A whole unit of d at the end opposite to the largest value, which has no code of its own; d rounded likewise.
  q4_0: (_, largest) => largest / 8 + 8 * ERROR.f16(largest / 8, 0) + 1e-6 * largest,
};

describe.each(TYPES)("%s", (dtype) => {
  it("errs by no more than its definition says", () => {
    const check = (values: Float32Array) => {
      const found = decode(dtype, encode(dtype, values));
      expect(found).toHaveLength(values.length);
      for (const [i, value] of values.entries()) {
        const error = Math.abs((found[i] as number) - value);
        const allowed = ERROR[dtype](value, largestOf(values, i));
        if (!(error <= allowed)) throw new Error(`[${i}]: ${value} became ${found[i]}, allowed ${allowed}`);
      }
    };
    fc.assert(fc.property(blocks, check));
  });

  it("keeps what it has decoded, and zero", () => {
    const check = (values: Float32Array) => {
      const found = decode(dtype, encode(dtype, values));
      const again = decode(dtype, encode(dtype, found));
      for (const [i, value] of values.entries()) {
        if (again[i] !== found[i]) throw new Error(`[${i}]: ${value} became ${found[i]}, then ${again[i]}`);
        if (value === 0 && found[i] !== 0) throw new Error(`[${i}]: 0 became ${found[i]}`);
      }
    };
    fc.assert(fc.property(blocks, check));
    expect(decode(dtype, encode(dtype, new Float32Array(32))).every((value) => value === 0)).toBe(true);
  });

  it.each([Number.NaN, Infinity, -Infinity])("refuses %f", (value) => {
    const values = new Float32Array(64).fill(1);
    values[37] = value;
    expect(() => encode(dtype, values)).toThrow(RangeError);
    expect(() => encode(dtype, values)).toThrow(new RegExp(`^${dtype} cannot hold .*(index 37|index 32 on)`));
  });
});

it("f16, and scales in f16, have a largest value", () => {
  const of = (value: number) => new Float32Array(32).fill(value);
  expect(decode("f16", encode("f16", of(65519)))[0]).toBe(65504);
  expect(() => encode("f16", of(65520))).toThrow("f16 cannot hold 65520, at index 0");
  expect(decode("q8_0", encode("q8_0", of(65504 * 127)))[5]).toBe(65504 * 127);
  expect(() => encode("q8_0", of(65520 * 127))).toThrow("q8_0 cannot hold the values from index 0 on");
  expect(() => encode("q4_0", of(65520 * 8))).toThrow("q4_0 cannot hold the values from index 0 on");
});

it("q8_0 rounds halves away from zero", () => {
  const values = new Float32Array(32);
  values.set([127, 0.5, -0.5, 1.5, -2.5, 0.49999997, -126.5]);
  const bytes = new Int8Array(encode("q8_0", values).buffer);
  // d is 1 (0x3c00).
  expect([...bytes.subarray(0, 9)]).toEqual([0, 0x3c, 127, 1, -1, 2, -3, 0, -127]);
});

it("q4_0 takes its sign from the largest value, the first of equals", () => {
  const values = new Float32Array(32);
  values.set([-8, 8, 7.4, 0.5, -0.5, -0.6]);
  values[16] = 3;
  const bytes = encode("q4_0", values);
  // d is 1: -8 is 0, 8 has no code and becomes 15 (7), element 16 lies over element 0.
  expect([...bytes.subarray(0, 8)]).toEqual([0, 0x3c, 0xb0, 0x8f, 0x8f, 0x89, 0x88, 0x87]);
  const mirrored = encode(
    "q4_0",
    values.map((x) => -x),
  );
  // d is -1 (0xbc00), so the codes are the same.
  expect([...mirrored]).toEqual([...bytes.with(1, 0xbc)]);
});

it("sizes are whole blocks of a row", () => {
  expect([...TYPES, "f32" as const, "u32" as const].map((dtype) => bytesOf(dtype, [3, 64]))).toEqual([
    384, 384, 204, 108, 768, 768,
  ]);
  for (const dtype of BLOCKS) {
    expect(() => bytesOf(dtype, [32, 40])).toThrow(`${dtype} wants rows of a multiple of 32, got 40`);
  }
  expect(bytesOf("f16", [3, 5])).toBe(30);
});

it("the kernels know the types by ggml's numbers", () => {
  expect(TYPES.map(storageCode)).toEqual([1, 30, 8, 2]);
});
