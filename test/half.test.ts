import fc from "fast-check";
import { expect, test } from "vitest";
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../src/half.js";

const allHalves = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** IEEE 754-2019 §3.4, from the definition. */
function f16Value(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 0x3ff;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
}

test("f16 decodes every bit pattern", () => {
  const values = f16ToF32(allHalves);
  for (const half of allHalves) {
    if (!Object.is(values[half], f16Value(half))) throw new Error(`0x${half.toString(16)}: ${values[half]}`);
  }
});

test("every f16 and bf16 survives the way through f32, NaN as NaN", () => {
  for (const [decode, encode] of [[f16ToF32, f32ToF16] as const, [bf16ToF32, f32ToBf16] as const]) {
    const values = decode(allHalves);
    const again = encode(values);
    const decoded = decode(again);
    const changed = allHalves.filter((half) => {
      return Number.isNaN(values[half]) ? !Number.isNaN(decoded[half]) : again[half] !== half;
    });
    expect([...changed]).toEqual([]);
  }
});

test("NaN stays NaN and does not become infinite, whatever its payload", () => {
  const payloads = new Float32Array(Uint32Array.of(0x7f800001, 0x7fc00000, 0xff800001, 0xffffffff).buffer);
  expect([...f16ToF32(f32ToF16(payloads))]).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN]);
  expect([...bf16ToF32(f32ToBf16(payloads))]).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN]);
});

test("f32 to f16: known values", () => {
  const cases: [number, number][] = [
    [65504, 0x7bff],
    [65519.996, 0x7bff],
    [65520, 0x7c00],
    [-65520, 0xfc00],
    [2 ** -24, 1],
    [2 ** -25, 0],
    [2 ** -25 + 2 ** -48, 1],
    [3 * 2 ** -25, 2],
    [2 ** -149, 0],
    [-0, 0x8000],
    [2 ** -14 - 2 ** -25, 0x0400],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
  ];
  for (const [value, half] of cases)
    expect([value, ...f32ToF16(Float32Array.of(value))]).toEqual([value, half]);
});

test("encoding rounds to the nearest, ties to even", () => {
  const check = (encode: typeof f32ToF16, decode: typeof f16ToF32, value: number) => {
    const [half = 0] = encode(Float32Array.of(value));
    const [rounded = 0] = decode(Uint16Array.of(half));
    if (!Number.isFinite(rounded)) return true;
    const magnitude = half & 0x7fff;
    const neighbours = [magnitude - 1, magnitude + 1].filter((bits) => bits >= 0);
    const distance = Math.abs(Math.abs(value) - Math.abs(rounded));
    return neighbours.every((bits) => {
      const [other = 0] = decode(Uint16Array.of(bits));
      const otherDistance = Math.abs(Math.abs(value) - other);
      return distance < otherDistance || (distance === otherDistance && magnitude % 2 === 0);
    });
  };
  const values = fc.oneof(
    fc.float({ noNaN: true, noDefaultInfinity: true }),
    fc.float({ min: -1, max: 1, noNaN: true }),
  );
  fc.assert(
    fc.property(values, (value) => check(f32ToF16, f16ToF32, value) && check(f32ToBf16, bf16ToF32, value)),
  );
});
