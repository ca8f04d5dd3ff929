// Matrix product on a register tile of MR rows by 8 columns. B is packed into panels of 8 columns, so that one
// step of k reads 32 bytes in a row; A is read where it lies, one broadcast a row. Strides are in bytes here.

import { madd, scratch, splat, sum4 } from "./simd";

/**
 * Rows of the tile: 6 rows need 12 accumulators, 2 vectors of B and one broadcast, which is all that x64 has;
 * without the fused multiply-add the product needs a register too, and 6 rows spill (half the speed, measured).
 */
export const MR: i32 = ASC_FEATURE_RELAXED_SIMD ? 6 : 4;

/** Depth of a packed block: 8 columns by 256 are 8 KiB and stay in the first-level cache. */
const KC: i32 = 256;
/** Columns of a packed block: 256 by 512 floats are 512 KiB and stay in the second-level cache. */
const NC: i32 = 512;
/**
 * Up to this many rows of A against transposed B, packing costs more than it saves. What counts is the rows of the
 * matrix, not of the range, so that the bits do not depend on how the work is divided.
 */
const THIN: i32 = 3;

/** Stores `count` of the 8 lanes of (lo, hi). */
function storePartial(p: usize, lo: v128, hi: v128, count: i32): void {
  let v = lo;
  if (count >= 4) {
    v128.store(p, lo);
    p += 16;
    v = hi;
    count -= 4;
  }
  if (count > 0) store<f32>(p, f32x4.extract_lane(v, 0));
  if (count > 1) store<f32>(p, f32x4.extract_lane(v, 1), 4);
  if (count > 2) store<f32>(p, f32x4.extract_lane(v, 2), 8);
}

/** One row of a finished tile: out = alpha·c + base, where a base of 0 is none. */
// @ts-ignore: decorator
@inline
function finishRow(out: usize, base: usize, cols: i32, alpha: v128, c0: v128, c1: v128): void {
  let lo = f32x4.mul(alpha, c0);
  let hi = f32x4.mul(alpha, c1);
  if (base) {
    lo = f32x4.add(lo, v128.load(base));
    hi = f32x4.add(hi, v128.load(base, 16));
  }
  if (cols >= 8) {
    v128.store(out, lo);
    v128.store(out, hi, 16);
  } else {
    storePartial(out, lo, hi, cols);
  }
}

/**
 * out(rows, cols) = alpha · A(rows, k) · B(k, cols) + base, for rows <= MR and cols <= 8. Rows past the end
 * repeat row 0 and are not stored; columns past the end read what follows and are not stored.
 */
// @ts-ignore: decorator
@inline
function tile(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, aK: usize,
  b: usize, bK: usize, k: i32, rows: i32, cols: i32, alpha: f32,
): void {
  let a0 = a;
  let a1 = rows > 1 ? a + aM : a;
  let a2 = rows > 2 ? a + 2 * aM : a;
  let a3 = rows > 3 ? a + 3 * aM : a;
  let a4 = rows > 4 ? a + 4 * aM : a;
  let a5 = rows > 5 ? a + 5 * aM : a;
  const zero = splat(0);
  let c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero;
  let c30 = zero, c31 = zero, c40 = zero, c41 = zero, c50 = zero, c51 = zero;
  for (; k > 0; k--) {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let s = v128.load_splat<f32>(a0);
    c00 = madd(s, b0, c00);
    c01 = madd(s, b1, c01);
    s = v128.load_splat<f32>(a1);
    c10 = madd(s, b0, c10);
    c11 = madd(s, b1, c11);
    s = v128.load_splat<f32>(a2);
    c20 = madd(s, b0, c20);
    c21 = madd(s, b1, c21);
    s = v128.load_splat<f32>(a3);
    c30 = madd(s, b0, c30);
    c31 = madd(s, b1, c31);
    if (MR > 4) {
      s = v128.load_splat<f32>(a4);
      c40 = madd(s, b0, c40);
      c41 = madd(s, b1, c41);
      s = v128.load_splat<f32>(a5);
      c50 = madd(s, b0, c50);
      c51 = madd(s, b1, c51);
      a4 += aK;
      a5 += aK;
    }
    a0 += aK;
    a1 += aK;
    a2 += aK;
    a3 += aK;
    b += bK;
  }
  const scale = splat(alpha);
  finishRow(out, base, cols, scale, c00, c01);
  if (rows > 1) finishRow(out + outM, base ? base + baseM : 0, cols, scale, c10, c11);
  if (rows > 2) finishRow(out + 2 * outM, base ? base + 2 * baseM : 0, cols, scale, c20, c21);
  if (rows > 3) finishRow(out + 3 * outM, base ? base + 3 * baseM : 0, cols, scale, c30, c31);
  if (MR > 4) {
    if (rows > 4) finishRow(out + 4 * outM, base ? base + 4 * baseM : 0, cols, scale, c40, c41);
    if (rows > 5) finishRow(out + 5 * outM, base ? base + 5 * baseM : 0, cols, scale, c50, c51);
  }
}

/**
 * out(rows, cols) = alpha · A(rows, k) · B(k, cols) + base over a block of B that lies in panels of 8 columns:
 * `panel` bytes from one panel to the next, `bK` from one k to the next. Packed: panel = 32·k, bK = 32.
 * A row-major matrix as it is: panel = 32, bK = its row.
 */
export function gemm(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, aK: usize,
  b: usize, bK: usize, panel: usize, rows: i32, k: i32, cols: i32, alpha: f32,
): void {
  for (let i = 0; i < rows; i += MR) {
    const height = min(MR, rows - i);
    let p = b;
    for (let j = 0; j < cols; j += 8) {
      const column = <usize>j << 2;
      tile(out + column, outM, base ? base + column : 0, baseM, a, aM, aK, p, bK, k, height, min(8, cols - j), alpha);
      p += panel;
    }
    out += <usize>height * outM;
    if (base) base += <usize>height * baseM;
    a += <usize>height * aM;
  }
}

/** Packs B(k, cols) into panels of 8 columns, zeros where the last is not full. */
export function pack(to: usize, b: usize, bK: usize, bN: usize, k: i32, cols: i32): void {
  for (let j = 0; j < cols; j += 8) {
    const width = min(8, cols - j);
    if (width == 8 && bN == 4) packRows(to, b, bK, k);
    else if (width == 8 && bK == 4) packColumns(to, b, bN, k);
    else packAny(to, b, bK, bN, k, width);
    to += <usize>k << 5;
    b += bN << 3;
  }
}

/** A panel of a row-major B: 8 floats in a row. */
// @ts-ignore: decorator
@inline
function packRows(to: usize, b: usize, bK: usize, k: i32): void {
  for (let end = to + (<usize>k << 5); to < end; to += 32) {
    v128.store(to, v128.load(b));
    v128.store(to, v128.load(b, 16), 16);
    b += bK;
  }
}

/** Transposes 4 rows of 4 at `b` (rows `bN` apart) into 4 steps of a panel at `to`. */
// @ts-ignore: decorator
@inline
function transpose4(to: usize, b: usize, bN: usize): void {
  const r0 = v128.load(b);
  const r1 = v128.load(b + bN);
  const r2 = v128.load(b + 2 * bN);
  const r3 = v128.load(b + 3 * bN);
  const t0 = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
  const t1 = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
  const t2 = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
  const t3 = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<f64>(t0, t1, 0, 2));
  v128.store(to, v128.shuffle<f64>(t0, t1, 1, 3), 32);
  v128.store(to, v128.shuffle<f64>(t2, t3, 0, 2), 64);
  v128.store(to, v128.shuffle<f64>(t2, t3, 1, 3), 96);
}

/** A panel of a transposed B: k in a row for each of the 8 columns. */
// @ts-ignore: decorator
@inline
function packColumns(to: usize, b: usize, bN: usize, k: i32): void {
  let i = 0;
  for (; i + 4 <= k; i += 4) {
    transpose4(to, b, bN);
    transpose4(to + 16, b + 4 * bN, bN);
    to += 128;
    b += 16;
  }
  packAny(to, b, 4, bN, k - i, 8);
}

function packAny(to: usize, b: usize, bK: usize, bN: usize, k: i32, width: i32): void {
  for (let i = 0; i < k; i++) {
    let p = b;
    for (let j = 0; j < width; j++) {
      store<f32>(to + (<usize>j << 2), load<f32>(p));
      p += bN;
    }
    for (let j = width; j < 8; j++) store<f32>(to + (<usize>j << 2), 0);
    to += 32;
    b += bK;
  }
}

/** One row of A against transposed B: a dot product a column, four columns at a time. */
function thinRow(out: usize, base: usize, a: usize, b: usize, bN: usize, k: i32, n: i32, alpha: f32): void {
  const body = k & ~3;
  const last = <usize>(n - 1) * bN + b;
  for (let j = 0; j < n; j += 4) {
    const b1 = min(b + bN, last);
    const b2 = min(b + 2 * bN, last);
    const b3 = min(b + 3 * bN, last);
    let s0 = splat(0), s1 = splat(0), s2 = splat(0), s3 = splat(0);
    let i: usize = 0;
    for (const end = <usize>body << 2; i < end; i += 16) {
      const x = v128.load(a + i);
      s0 = madd(x, v128.load(b + i), s0);
      s1 = madd(x, v128.load(b1 + i), s1);
      s2 = madd(x, v128.load(b2 + i), s2);
      s3 = madd(x, v128.load(b3 + i), s3);
    }
    let d0 = sum4(s0), d1 = sum4(s1), d2 = sum4(s2), d3 = sum4(s3);
    for (const end = <usize>k << 2; i < end; i += 4) {
      const x = load<f32>(a + i);
      d0 += x * load<f32>(b + i);
      d1 += x * load<f32>(b1 + i);
      d2 += x * load<f32>(b2 + i);
      d3 += x * load<f32>(b3 + i);
    }
    finishDot(out, base, alpha * d0);
    if (j + 1 < n) finishDot(out + 4, base ? base + 4 : 0, alpha * d1);
    if (j + 2 < n) finishDot(out + 8, base ? base + 8 : 0, alpha * d2);
    if (j + 3 < n) finishDot(out + 12, base ? base + 12 : 0, alpha * d3);
    out += 16;
    if (base) base += 16;
    b += 4 * bN;
  }
}

// @ts-ignore: decorator
@inline
function finishDot(out: usize, base: usize, value: f32): void {
  store<f32>(out, base ? load<f32>(base) + value : value);
}

/** Rows of one batch element. */
function matmulRows(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, aK: usize,
  b: usize, bK: usize, bN: usize, rows: i32, k: i32, n: i32, alpha: f32, thin: bool,
): void {
  if (thin) {
    for (let i = 0; i < rows; i++) {
      const row = <usize>i;
      thinRow(out + row * outM, base ? base + row * baseM : 0, a + row * aM, b, bN, k, n, alpha);
    }
    return;
  }
  for (let j = 0; j < n; j += NC) {
    const width = min(NC, n - j);
    const column = <usize>j << 2;
    let addTo = base ? base + column : 0;
    let addM = baseM;
    for (let p = 0; p < k; p += KC) {
      const depth = min(KC, k - p);
      pack(scratch, b + <usize>p * bK + <usize>j * bN, bK, bN, depth, width);
      gemm(out + column, outM, addTo, addM, a + <usize>p * aK, aM, aK, scratch, 32, <usize>depth << 5, rows, depth, width, alpha);
      addTo = out + column;
      addM = outM;
    }
  }
}

/**
 * out(m, n) = alpha · A(m, k) · B(k, n) + bias(n), or += without bias. Strides in elements choose the
 * transposition; a batch stride of 0 shares the operand. Range: rows of all batch elements, batch · m.
 */
export function matmul(
  out: usize, a: usize, b: usize, bias: usize,
  batch: u32, m: u32, k: u32, n: u32,
  a_batch: u32, a_m: u32, a_k: u32, b_batch: u32, b_k: u32, b_n: u32, out_batch: u32, out_m: u32,
  has_bias: u32, accumulate: u32,
  alpha: f32, begin: u32, end: u32,
): void {
  const aM = <usize>a_m << 2;
  const outM = <usize>out_m << 2;
  const thin = <i32>m <= THIN && a_k == 1 && b_k == 1;
  while (begin < end) {
    const index = begin / m;
    const row = begin - index * m;
    const rows = min(m - row, end - begin);
    const to = out + (<usize>index * out_batch << 2) + <usize>row * outM;
    matmulRows(
      to, outM, accumulate ? to : has_bias ? bias : 0, accumulate ? outM : 0,
      a + (<usize>index * a_batch << 2) + <usize>row * aM, aM, <usize>a_k << 2,
      b + (<usize>index * b_batch << 2), <usize>b_k << 2, <usize>b_n << 2,
      rows, k, n, alpha, thin,
    );
    begin += rows;
  }
}
