// Products with weights as they are stored: f16, bf16, and ggml's blocks of 32 along a row. Weights are decoded on
// the way into the product, never as a whole matrix. Scales and f16 weights are finite: who encodes them checks that.

import { gemm, pack } from "./matmul";
import { madd, scratch, splat, sum4 } from "./simd";

// Storage types by ggml's numbers.
/** IEEE 754 binary16. */
const F16: u32 = 1;
/** 18 bytes: d (f16), then 16 bytes, byte i with element i in its low half and i + 16 in its high; (q - 8)·d. */
const Q4_0: u32 = 2;
/** 34 bytes: d (f16), then 32 signed bytes; q·d. */
const Q8_0: u32 = 8;
// The rest is bfloat16, ggml's 30.

/** Elements of a block. */
const BLOCK: i32 = 32;

/** Rows of W in a unit of the forward's range: a multiple of all that is done at once. */
const ROWS_PER_UNIT: u32 = 16;
/** Columns of W in a unit of the backward's range. */
const COLS_PER_UNIT: u32 = 32;

/** Up to this many rows of x, W goes through the registers once, row by row, and no panel of it is packed. */
const FEW: u32 = 8;
/** Longer rows of x take the way of many: the quantised rows must fit into the scratch. */
const FEW_COLS: u32 = 32768;

/** Decoded weights for the register tile: 128 rows by 256 columns are 128 KiB, and as much again when packed. */
const PANEL_COLS: u32 = 128;
const PANEL_DEPTH: u32 = 256;
/** Where they lie before they are packed, from the start of the scratch. */
const DECODED: usize = 1 << 19;

/** Bytes of `cols` elements, which fill whole blocks where the type has such. */
// @ts-ignore: decorator
@inline
function bytesOf(type: u32, cols: u32): usize {
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
function opaque(bits: i32): v128 {
  return i32x4.splat(bits | <i32>(scratch >>> 31));
}

/** What `half4` needs: sign, exponent and fraction of a f16 at their places in f32; 2^112 as f32. */
const PLACES: i32 = <i32>0x8fffe000;
const POWER: i32 = 0x77800000;

/**
 * Four f16 in the upper halves of the lanes, whatever the lower halves hold; exact for all finite ones. Exponent
 * and fraction go to their places in f32; the product moves the bias from 15 to 127 and makes subnormals normal.
 */
// @ts-ignore: decorator
@inline
function half4(upper: v128, places: v128, power: v128): v128 {
  return f32x4.mul(v128.and(i32x4.shr_s(upper, 3), places), power);
}

/** Elements 0 to 3 of 8 halves, in the upper halves of the lanes: bf16 is then decoded. */
// @ts-ignore: decorator
@inline
function upperLow(halves: v128): v128 {
  return v128.shuffle<i16>(i32x4.splat(0), halves, 0, 8, 1, 9, 2, 10, 3, 11);
}

/** Elements 4 to 7 likewise. */
// @ts-ignore: decorator
@inline
function upperHigh(halves: v128): v128 {
  return v128.shuffle<i16>(i32x4.splat(0), halves, 4, 12, 5, 13, 6, 14, 7, 15);
}

/** One f16 or bf16. */
// @ts-ignore: decorator
@inline
function half1(p: usize, type: u32): f32 {
  const upper = i32x4.splat(<i32>load<u16>(p) << 16);
  return f32x4.extract_lane(type == F16 ? half4(upper, i32x4.splat(PLACES), i32x4.splat(POWER)) : upper, 0);
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

// ---- Few rows of x: quantised to 8 bits, so that the products are of integers -------------------------------------

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
 * A row of q8_0 with one of x, four blocks at a time. One row after the other reads memory in one stream: with four
 * rows at once, beyond the caches, it is half as fast (7 against 17 GB/s, measured). A block's sum is at most
 * 32·127·128, which f32 holds.
 */
function dotQ8(w: usize, x: usize, blocks: u32): f32 {
  const places = opaque(PLACES), power = opaque(POWER);
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
function dotQ4(w: usize, x: usize, blocks: u32): f32 {
  const places = opaque(PLACES), power = opaque(POWER), mask = opaque(0x0f0f0f0f);
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
function dotHalfFloats(w: usize, x: usize, k: u32, type: u32): f32 {
  const places = opaque(PLACES), power = opaque(POWER);
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

function dotF16(w: usize, x: usize, k: u32): f32 {
  return dotHalfFloats(w, x, k, F16);
}

function dotBF16(w: usize, x: usize, k: u32): f32 {
  return dotHalfFloats(w, x, k, 0);
}

/** Columns [begin, end) of out for few rows of x: W is streamed once, row by row. */
function fewRows(
  out: usize, outM: usize, x: usize, weight: usize, bias: usize, rows: u32, k: u32, type: u32, begin: u32, end: u32,
): void {
  const rowBytes = bytesOf(type, k);
  const blocks = k / BLOCK;
  let a = x;
  let aM = <usize>k << 2;
  if (type == Q8_0 || type == Q4_0) {
    const narrow = BYTES && type == Q4_0;
    a = scratch;
    aM = quantisedBytes(blocks, narrow);
    for (let r: usize = 0; r < rows; r++) quantise(a + r * aM, x + ((r * k) << 2), blocks, narrow);
  }
  for (let j = begin; j < end; j++) {
    const w = weight + <usize>j * rowBytes;
    const column = <usize>j << 2;
    const added: f32 = bias ? load<f32>(bias + column) : 0;
    for (let r: usize = 0; r < rows; r++) {
      const ar = a + r * aM;
      let sum: f32;
      if (type == Q8_0) sum = dotQ8(w, ar, blocks);
      else if (type == Q4_0) sum = dotQ4(w, ar, blocks);
      else if (type == F16) sum = dotF16(w, ar, k);
      else sum = dotBF16(w, ar, k);
      store<f32>(out + r * outM + column, added + sum);
    }
  }
}

// ---- Many rows: blocks of W decoded to f32 for the register tile ---------------------------------------------------

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
function decode(to: usize, w: usize, cols: u32, type: u32): void {
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

/** Decodes a part of W, `rows` by `cols` from `w` on, to where the tile's panels are packed from. */
function decodePart(w: usize, rowBytes: usize, rows: u32, cols: u32, type: u32): void {
  let to = scratch + DECODED;
  for (let r: u32 = 0; r < rows; r++) {
    decode(to, w, cols, type);
    to += <usize>cols << 2;
    w += rowBytes;
  }
}

/**
 * out(rows, cols) = A(rows, depth) · B(depth, cols) + base with B from the decoded part, strides bK and bN: the one
 * place that knows the register tile.
 */
function multiply(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, bK: usize, bN: usize,
  rows: i32, depth: i32, cols: i32,
): void {
  pack(scratch, scratch + DECODED, bK, bN, depth, cols);
  gemm(out, outM, base, baseM, a, aM, 4, scratch, 32, <usize>depth << 5, rows, depth, cols, 1);
}

/** Columns [begin, end) of out for many rows of x. */
function manyRows(
  out: usize, outM: usize, x: usize, weight: usize, bias: usize, rows: u32, k: u32, type: u32, begin: u32, end: u32,
): void {
  const rowBytes = bytesOf(type, k);
  for (let j = begin; j < end; j += PANEL_COLS) {
    const cols = min(PANEL_COLS, end - j);
    const to = out + (<usize>j << 2);
    for (let p: u32 = 0; p < k; p += PANEL_DEPTH) {
      const depth = min(PANEL_DEPTH, k - p);
      const base = p > 0 ? to : bias ? bias + (<usize>j << 2) : 0;
      decodePart(weight + <usize>j * rowBytes + bytesOf(type, p), rowBytes, cols, depth, type);
      multiply(
        to, outM, base, p > 0 ? outM : 0, x + (<usize>p << 2), <usize>k << 2, 4, <usize>depth << 2,
        rows, depth, cols,
      );
    }
  }
}

// ---- The kernels ---------------------------------------------------------------------------------------------------

/**
 * out(rows, n) = x(rows, k) · W(n, k)ᵀ + bias(n), rows of out `out_m` elements apart. W is of `weight_type`; q8_0 and
 * q4_0 want k to be a multiple of 32. Range: units of 16 columns of out.
 *
 * Up to 8 rows with q8_0 or q4_0: each block of 32 of x is rounded to q·d_x, d_x = max|x| / 127 (as ggml does on the
 * CPU), so that an output errs by at most Σ over blocks of |d_w|·Σ|q_w|·d_x / 2, and the rounding of f32. The sums
 * over a block are exact. Else x is taken as it is.
 */
export function linear_quantised(
  out: usize, x: usize, weight: usize, bias: usize,
  rows: u32, k: u32, n: u32, out_m: u32, weight_type: u32, has_bias: u32, begin: u32, end: u32,
): void {
  const first = begin * ROWS_PER_UNIT;
  const last = min(n, end * ROWS_PER_UNIT);
  const outM = <usize>out_m << 2;
  const added = has_bias ? bias : 0;
  if (rows <= FEW && k <= FEW_COLS) fewRows(out, outM, x, weight, added, rows, k, weight_type, first, last);
  else manyRows(out, outM, x, weight, added, rows, k, weight_type, first, last);
}

/**
 * dx(rows, k) += dout(rows, n) · W(n, k), rows of dout `out_m` elements apart; W has no gradient. Range: units of 32
 * columns of dx.
 */
export function linear_quantised_backward(
  dx: usize, dout: usize, weight: usize,
  rows: u32, k: u32, n: u32, out_m: u32, weight_type: u32, begin: u32, end: u32,
): void {
  const rowBytes = bytesOf(weight_type, k);
  const first = begin * COLS_PER_UNIT;
  const last = min(k, end * COLS_PER_UNIT);
  const dxM = <usize>k << 2;
  for (let j = first; j < last; j += PANEL_COLS) {
    const cols = min(PANEL_COLS, last - j);
    const to = dx + (<usize>j << 2);
    for (let p: u32 = 0; p < n; p += PANEL_DEPTH) {
      const depth = min(PANEL_DEPTH, n - p);
      decodePart(weight + <usize>p * rowBytes + bytesOf(weight_type, j), rowBytes, depth, cols, weight_type);
      multiply(to, dxM, to, dxM, dout + (<usize>p << 2), <usize>out_m << 2, <usize>cols << 2, 4, rows, depth, cols);
    }
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
