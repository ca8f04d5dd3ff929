// Few rows times stored weights, as decoding has it: dot products along the rows of W, of integers where W is blocks of
// such.

import { dotColumn } from "./dot";
import {
  BF16, BLOCK, bytesOf, decode, F16, half1, half4, opaque, PLACES, POWER, Q4_0, Q8_0, upperHigh, upperLow,
} from "./quant";
import { madd, scratch, splat, sum4 } from "./simd";
import { zeroRow } from "./tile";

/**
 * Whether q4_0 multiplies bytes: its unsigned halves, 0 to 15, by signed x, which relaxed SIMD leaves nothing open
 * in. A quantised row of x then is its values as i8, else as i16; then the scale of each block (f32), then 8 times
 * the sum of its values (i32).
 */
const BYTES: bool = ASC_FEATURE_RELAXED_SIMD;

/** Blocks whose largest value is under this count as 0: the reciprocal of their scale would overflow. */
const LEAST: f32 = 1e-36;

/** 4 values as integers, to the nearest. */
// @ts-ignore: decorator
@inline
function rounded4(p: usize, inverse: v128): v128 {
  return i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(p), inverse)));
}

/** 8 values as i16. */
// @ts-ignore: decorator
@inline
function rounded8(p: usize, inverse: v128): v128 {
  return i16x8.narrow_i32x4_s(rounded4(p, inverse), rounded4(p + 16, inverse));
}

/** The largest |x| of a block, NaN where one is. */
// @ts-ignore: decorator
@inline
function largest(x: usize): f32 {
  let most = f32x4.abs(v128.load(x));
  for (let i: usize = 16; i < 128; i += 16) most = f32x4.max(most, f32x4.abs(v128.load(x + i)));
  most = f32x4.max(most, v128.shuffle<f32>(most, most, 2, 3, 0, 1));
  return max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1));
}

/**
 * Blocks of 32 of x as round(x / d)·d, d = max|x| / 127. NaN makes d NaN, infinity makes it infinite, so either makes
 * the product NaN.
 */
function quantise(to: usize, x: usize, blocks: u32, narrow: bool): void {
  let scale = to + (<usize>blocks << (narrow ? 5 : 6));
  for (let b: u32 = 0; b < blocks; b++) {
    const most = largest(x);
    const isZero = most < LEAST;
    const inverse = splat(isZero ? 0 : 127 / most);
    const q0 = rounded8(x, inverse);
    const q1 = rounded8(x + 32, inverse);
    const q2 = rounded8(x + 64, inverse);
    const q3 = rounded8(x + 96, inverse);
    if (narrow) {
      v128.store(to, i8x16.narrow_i16x8_s(q0, q1));
      v128.store(to, i8x16.narrow_i16x8_s(q2, q3), 16);
      to += 32;
    } else {
      v128.store(to, q0);
      v128.store(to, q1, 16);
      v128.store(to, q2, 32);
      v128.store(to, q3, 48);
      to += 64;
    }
    store<f32>(scale, isZero ? 0 : most / 127);
    const sums = i32x4.extadd_pairwise_i16x8_s(i16x8.add(i16x8.add(q0, q1), i16x8.add(q2, q3)));
    const pairs = i32x4.add(sums, v128.shuffle<i32>(sums, sums, 2, 3, 0, 1));
    store<i32>(scale + (<usize>blocks << 2), (i32x4.extract_lane(pairs, 0) + i32x4.extract_lane(pairs, 1)) << 3);
    scale += 4;
    x += 128;
  }
}

/** Bytes of a quantised row of x. */
// @ts-ignore: decorator
@inline
function quantisedBytes(blocks: u32, narrow: bool): usize {
  return ((<usize>blocks << (narrow ? 5 : 6)) + (<usize>blocks << 3) + 15) & ~15;
}

/** d of the blocks at four places. */
// @ts-ignore: decorator
@inline
function scales4(p0: usize, p1: usize, p2: usize, p3: usize, places: v128, power: v128): v128 {
  let v = v128.load_lane<u16>(p0, i32x4.splat(0), 1);
  v = v128.load_lane<u16>(p1, v, 3);
  v = v128.load_lane<u16>(p2, v, 5);
  v = v128.load_lane<u16>(p3, v, 7);
  return half4(v, places, power);
}

/** The sums of the lanes of four vectors. */
// @ts-ignore: decorator
@inline
function sums4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.add(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7));
  const cd = i32x4.add(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7));
  return i32x4.add(v128.shuffle<i64>(ab, cd, 0, 2), v128.shuffle<i64>(ab, cd, 1, 3));
}

/** Products of the 32 signed bytes of a block of q8_0 with x, in four sums. */
// @ts-ignore: decorator
@inline
function dotBytes(w: usize, x: usize): v128 {
  const s01 = i32x4.add(
    i32x4.dot_i16x8_s(v128.load_ext<i8>(w, 2), v128.load(x)),
    i32x4.dot_i16x8_s(v128.load_ext<i8>(w, 10), v128.load(x, 16)),
  );
  const s23 = i32x4.add(
    i32x4.dot_i16x8_s(v128.load_ext<i8>(w, 18), v128.load(x, 32)),
    i32x4.dot_i16x8_s(v128.load_ext<i8>(w, 26), v128.load(x, 48)),
  );
  return i32x4.add(s01, s23);
}

/**
 * A row of q8_0 with one of x, four blocks at a time. One row after the other reads memory in one stream: two rows
 * at once reach a third of the rate beyond the caches (87 MB in rows of 2048: 5 to 6 against 14 to 16 GB/s, measured).
 * A block's sum is at most 32·127·128, which f32 holds.
 */
// @ts-ignore: decorator
@inline
function dotQ8(w: usize, x: usize, blocks: u32, places: v128, power: v128): f32 {
  let scale = x + (<usize>blocks << 6);
  let acc = splat(0);
  for (; blocks >= 4; blocks -= 4) {
    const sums = sums4(dotBytes(w, x), dotBytes(w + 34, x + 64), dotBytes(w + 68, x + 128), dotBytes(w + 102, x + 192));
    const d = f32x4.mul(scales4(w, w + 34, w + 68, w + 102, places, power), v128.load(scale));
    acc = madd(f32x4.convert_i32x4_s(sums), d, acc);
    w += 136;
    x += 256;
    scale += 16;
  }
  for (; blocks > 0; blocks--) {
    const d = f32x4.mul(half4(v128.load_splat<u16>(w), places, power), v128.load_splat<f32>(scale));
    acc = madd(f32x4.convert_i32x4_s(dotBytes(w, x)), d, acc);
    w += 34;
    x += 64;
    scale += 4;
  }
  return sum4(acc);
}

/** Products of the 32 halves of bytes of a block of q4_0 with x, in four sums; with `BYTES`, 8 is not taken off. */
// @ts-ignore: decorator
@inline
function dotHalfBytes(w: usize, x: usize, mask: v128): v128 {
  const bytes = v128.load(w, 2);
  let low = v128.and(bytes, mask);
  let high = v128.and(i16x8.shr_u(bytes, 4), mask);
  if (BYTES) {
    // A lane adds four products of at most 15·127, which i16 holds.
    const sums = i16x8.add(
      i16x8.relaxed_dot_i8x16_i7x16_s(v128.load(x), low), i16x8.relaxed_dot_i8x16_i7x16_s(v128.load(x, 16), high),
    );
    return i32x4.extadd_pairwise_i16x8_s(sums);
  }
  const eight = i8x16.splat(8);
  low = i8x16.sub(low, eight);
  high = i8x16.sub(high, eight);
  const s01 = i32x4.add(
    i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(low), v128.load(x)),
    i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(low), v128.load(x, 16)),
  );
  const s23 = i32x4.add(
    i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(high), v128.load(x, 32)),
    i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(high), v128.load(x, 48)),
  );
  return i32x4.add(s01, s23);
}

/** A row of q4_0 with one of x, four blocks at a time. */
// @ts-ignore: decorator
@inline
function dotQ4(w: usize, x: usize, blocks: u32, places: v128, power: v128, mask: v128): f32 {
  const xBytes: usize = BYTES ? 32 : 64;
  const sumsFrom = <usize>blocks << 2;
  let scale = x + <usize>blocks * xBytes;
  let acc = splat(0);
  for (; blocks >= 4; blocks -= 4) {
    let sums = sums4(
      dotHalfBytes(w, x, mask), dotHalfBytes(w + 18, x + xBytes, mask),
      dotHalfBytes(w + 36, x + 2 * xBytes, mask), dotHalfBytes(w + 54, x + 3 * xBytes, mask),
    );
    if (BYTES) sums = i32x4.sub(sums, v128.load(scale + sumsFrom));
    const d = f32x4.mul(scales4(w, w + 18, w + 36, w + 54, places, power), v128.load(scale));
    acc = madd(f32x4.convert_i32x4_s(sums), d, acc);
    w += 72;
    x += 4 * xBytes;
    scale += 16;
  }
  for (; blocks > 0; blocks--) {
    let sums = dotHalfBytes(w, x, mask);
    if (BYTES) sums = i32x4.sub(sums, v128.load_zero<i32>(scale + sumsFrom));
    const d = f32x4.mul(half4(v128.load_splat<u16>(w), places, power), v128.load_splat<f32>(scale));
    acc = madd(f32x4.convert_i32x4_s(sums), d, acc);
    w += 18;
    x += xBytes;
    scale += 4;
  }
  return sum4(acc);
}

/** A row of f16 or bf16 with one of x, in f32. */
// @ts-ignore: decorator
@inline
function dotHalves(w: usize, x: usize, k: u32, type: u32, places: v128, power: v128): f32 {
  let s0 = splat(0), s1 = splat(0), s2 = splat(0), s3 = splat(0);
  let i: u32 = 0;
  for (; i + 16 <= k; i += 16) {
    const v = v128.load(w);
    const u = v128.load(w, 16);
    s0 = madd(type == F16 ? half4(upperLow(v), places, power) : upperLow(v), v128.load(x), s0);
    s1 = madd(type == F16 ? half4(upperHigh(v), places, power) : upperHigh(v), v128.load(x, 16), s1);
    s2 = madd(type == F16 ? half4(upperLow(u), places, power) : upperLow(u), v128.load(x, 32), s2);
    s3 = madd(type == F16 ? half4(upperHigh(u), places, power) : upperHigh(u), v128.load(x, 48), s3);
    w += 32;
    x += 64;
  }
  let sum = sum4(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  for (; i < k; i++) {
    sum += half1(w, type) * load<f32>(x);
    w += 2;
    x += 4;
  }
  return sum;
}

/**
 * The same where the rows of x lie `xBytes` apart, quantised already. W is streamed once, row by row. Each type has its
 * copy of the loop, so that its constants stay in registers.
 */
// @ts-ignore: decorator
@inline
function fewRowsOf(
  type: u32, out: usize, outM: usize, x: usize, xBytes: usize, weight: usize, bias: usize, rows: u32, k: u32,
  begin: u32, end: u32,
): void {
  const places = opaque(PLACES), power = opaque(POWER), mask = opaque(0x0f0f0f0f);
  const rowBytes = bytesOf(type, k);
  const blocks = k / BLOCK;
  let w = weight + <usize>begin * rowBytes;
  for (let j = begin; j < end; j++) {
    const column = <usize>j << 2;
    const added: f32 = bias ? load<f32>(bias + column) : 0;
    let xr = x;
    let to = out + column;
    for (let r: u32 = 0; r < rows; r++) {
      let sum: f32;
      if (type == Q8_0) sum = dotQ8(w, xr, blocks, places, power);
      else if (type == Q4_0) sum = dotQ4(w, xr, blocks, places, power, mask);
      else sum = dotHalves(w, xr, k, type, places, power);
      store<f32>(to, added + sum);
      xr += xBytes;
      to += outM;
    }
    w += rowBytes;
  }
}

/** Several rows of x with f16 or bf16: a row of W is decoded once for all of them. */
function severalRowsOfHalves(
  out: usize, outM: usize, x: usize, weight: usize, bias: usize, rows: u32, k: u32, type: u32, begin: u32, end: u32,
): void {
  const rowBytes = bytesOf(type, k);
  const none = zeroRow(1);
  for (let j = begin; j < end; j++) {
    const column = <usize>j << 2;
    decode(scratch, weight + <usize>j * rowBytes, k, type);
    dotColumn(out + column, outM, bias ? bias + column : none, 0, x, <usize>k << 2, scratch, rows, k, 1);
  }
}

/**
 * Columns [begin, end) of out(rows, n) = x(rows, k) · W(n, k)ᵀ + bias for few rows of x, rows of out `outM` bytes
 * apart; a bias of 0 is none. Blocks of integers meet x rounded to 8 bits in blocks.
 */
export function fewRows(
  out: usize, outM: usize, x: usize, weight: usize, bias: usize, rows: u32, k: u32, type: u32, begin: u32, end: u32,
): void {
  let xBytes = <usize>k << 2;
  if (type == Q8_0 || type == Q4_0) {
    const blocks = k / BLOCK;
    const narrow = BYTES && type == Q4_0;
    const from = x;
    x = scratch;
    xBytes = quantisedBytes(blocks, narrow);
    for (let r: usize = 0; r < rows; r++) quantise(x + r * xBytes, from + ((r * k) << 2), blocks, narrow);
  }
  if (type == Q8_0) fewRowsOf(Q8_0, out, outM, x, xBytes, weight, bias, rows, k, begin, end);
  else if (type == Q4_0) fewRowsOf(Q4_0, out, outM, x, xBytes, weight, bias, rows, k, begin, end);
  else if (rows > 1) severalRowsOfHalves(out, outM, x, weight, bias, rows, k, type, begin, end);
  else if (type == F16) fewRowsOf(F16, out, outM, x, xBytes, weight, bias, rows, k, begin, end);
  else fewRowsOf(BF16, out, outM, x, xBytes, weight, bias, rows, k, begin, end);
}
