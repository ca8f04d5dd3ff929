// Weights as they are stored, and how they become f32: f16, bf16, and ggml's blocks of 32 along a row. Scales and f16
// weights are finite: who encodes them checks that.

import { scratch, splat } from "./simd";

// Storage types by ggml's numbers.
/** IEEE 754 binary16. */
export const F16: u32 = 1;
/** 18 bytes: d (f16), then 16 bytes, byte i with element i in its low half and i + 16 in its high; (q - 8)·d. */
export const Q4_0: u32 = 2;
/** 34 bytes: d (f16), then 32 signed bytes; q·d. */
export const Q8_0: u32 = 8;
/** The upper half of f32. */
export const BF16: u32 = 30;

/** Elements of a block. */
export const BLOCK: i32 = 32;

/** Bytes of `cols` elements, which fill whole blocks where the type has such. */
// @ts-ignore: decorator
@inline
export function bytesOf(type: u32, cols: u32): usize {
  if (type == Q8_0) return <usize>(cols / BLOCK) * 34;
  if (type == Q4_0) return <usize>(cols / BLOCK) * 18;
  return <usize>cols << 1;
}

/**
 * `bits` in every lane, as a value that no compiler sees through: V8 makes a known constant anew at each use, in
 * three instructions, inside of loops too; this one stays in a register (the product with f16 takes half the time,
 * measured). The scratch lies far below 2^31.
 */
// @ts-ignore: decorator
@inline
export function opaque(bits: i32): v128 {
  return i32x4.splat(bits | <i32>(scratch >>> 31));
}

/** What `half4` needs: sign, exponent and fraction of a f16 at their places in f32; 2^112 as f32. */
export const PLACES: i32 = <i32>0x8fffe000;
export const POWER: i32 = 0x77800000;

/**
 * Four f16 in the upper halves of the lanes, whatever the lower halves hold; exact for all finite ones. Exponent
 * and fraction go to their places in f32; the product moves the bias from 15 to 127 and makes subnormals normal.
 */
// @ts-ignore: decorator
@inline
export function half4(upper: v128, places: v128, power: v128): v128 {
  return f32x4.mul(v128.and(i32x4.shr_s(upper, 3), places), power);
}

/** Elements 0 to 3 of 8 halves, in the upper halves of the lanes: bf16 is then decoded. */
// @ts-ignore: decorator
@inline
export function upperLow(halves: v128): v128 {
  return v128.shuffle<i16>(i32x4.splat(0), halves, 0, 8, 1, 9, 2, 10, 3, 11);
}

/** Elements 4 to 7 likewise. */
// @ts-ignore: decorator
@inline
export function upperHigh(halves: v128): v128 {
  return v128.shuffle<i16>(i32x4.splat(0), halves, 4, 12, 5, 13, 6, 14, 7, 15);
}

/** One f16 or bf16. */
// @ts-ignore: decorator
@inline
export function half1(p: usize, type: u32): f32 {
  const upper = i32x4.splat(<i32>load<u16>(p) << 16);
  return f32x4.extract_lane(type == F16 ? half4(upper, i32x4.splat(PLACES), i32x4.splat(POWER)) : upper, 0);
}

/** 16 signed bytes, times d. */
// @ts-ignore: decorator
@inline
function storeBytes(to: usize, bytes: v128, d: v128): void {
  const low = i16x8.extend_low_i8x16_s(bytes);
  const high = i16x8.extend_high_i8x16_s(bytes);
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low)), d));
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low)), d), 16);
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high)), d), 32);
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high)), d), 48);
}

/** Decodes `cols` elements at `w`, whole blocks where the type has such. */
export function decode(to: usize, w: usize, cols: u32, type: u32): void {
  const places = opaque(PLACES), power = opaque(POWER);
  if (type == Q8_0 || type == Q4_0) {
    for (const end = to + (<usize>cols << 2); to < end; to += 128) {
      const d = splat(half1(w, F16));
      const first = v128.load(w, 2);
      if (type == Q8_0) {
        storeBytes(to, first, d);
        storeBytes(to + 64, v128.load(w, 18), d);
        w += 34;
      } else {
        const mask = i8x16.splat(15);
        const eight = i8x16.splat(8);
        storeBytes(to, i8x16.sub(v128.and(first, mask), eight), d);
        storeBytes(to + 64, i8x16.sub(v128.and(i16x8.shr_u(first, 4), mask), eight), d);
        w += 18;
      }
    }
    return;
  }
  const end = to + (<usize>cols << 2);
  for (; to + 32 <= end; to += 32) {
    const halves = v128.load(w);
    v128.store(to, type == F16 ? half4(upperLow(halves), places, power) : upperLow(halves));
    v128.store(to, type == F16 ? half4(upperHigh(halves), places, power) : upperHigh(halves), 16);
    w += 16;
  }
  for (; to < end; to += 4) {
    store<f32>(to, half1(w, type));
    w += 2;
  }
}

/**
 * out[t] = table[ids[t] - first], decoded, for ids in [first, first + count); other rows of out are left as they
 * are. Range: n ids.
 */
export function embedding_quantised(
  out: usize, table: usize, ids: usize,
  n: u32, dim: u32, first: u32, count: u32, weight_type: u32, begin: u32, end: u32,
): void {
  const rowBytes = bytesOf(weight_type, dim);
  for (let t = begin; t < end; t++) {
    const row = load<u32>(ids + (<usize>t << 2)) - first;
    if (row < count) decode(out + (<usize>(t * dim) << 2), table + <usize>row * rowBytes, dim, weight_type);
  }
}
