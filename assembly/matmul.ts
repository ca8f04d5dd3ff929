// Matrix product. Many rows run on the register tile over packed blocks of B; few rows against transposed B are dot
// products, since packing would take longer. The work is divided by columns, so that no thread packs what another
// does, and by rows where there are few columns, or where A is packed too and is the larger.

import { gemm, GEMM_COLS, pack, packedTile, packRows, tile_rows, zeroRow } from "./tile";
import { madd, scratch, splat, sum4 } from "./simd";

/** Depth of a packed block: 16 columns by 512 are 32 KiB, which stay next to the registers while rows run past. */
const KC: i32 = 512;
/** Floats of a packed block: 512 by 256 are 512 KiB and stay in the second-level cache. A shallow one is wider. */
const BLOCK: i32 = 512 * 256;
/**
 * Rows of A that a block is multiplied with in a turn: 96 by 512 floats share that cache with it. The three were
 * chosen from a dozen by the mean rate over eight shapes (Zen 4: 104 GFLOP/s of 118, and 55.5 of 58.5 unpaired, where
 * 256, 512 and 192 reach 102 and 54.6).
 */
const MC: i32 = 96;
/**
 * Up to this many rows of A against transposed B, packing costs more than it saves. What counts is the rows of the
 * matrix, not of the range, so that the bits do not depend on how the work is divided.
 */
const THIN: i32 = 8;
/** Columns and rows of one unit of the range, and the least columns that are divided rather than rows. */
const UNIT_COLS: u32 = 16;
const UNIT_ROWS: u32 = 48;
const DIVIDED_COLS: u32 = 64;

/** out = alpha · (the sum of the lanes, and of the 0 to 3 products that are left) + base. */
// @ts-ignore: decorator
@inline
function finishDot(out: usize, base: usize, sums: v128, a: usize, b: usize, left: i32, alpha: f32): void {
  let sum = sum4(sums);
  for (; left > 0; left--) {
    sum += load<f32>(a) * load<f32>(b);
    a += 4;
    b += 4;
  }
  store<f32>(out, alpha * sum + load<f32>(base));
}

/**
 * `rows` (1 to 4) rows of A by a column of transposed B, as dot products along k: each vector of B is loaded once for
 * all rows, and nothing is packed. One column at a time, since several streams from memory are slower than one (288 by
 * 32,000 weights come at 21 GB/s, four columns at a time at 11, measured). Each row has two sums, or four where the
 * rows are so few that the processor would wait for them.
 */
// @ts-ignore: decorator
@inline
function dots(
  rows: i32, out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, b: usize, k: i32, alpha: f32,
): void {
  const zero = splat(0);
  let c00 = zero, c01 = zero, c02 = zero, c03 = zero;
  let c10 = zero, c11 = zero, c12 = zero, c13 = zero;
  let c20 = zero, c21 = zero, c30 = zero, c31 = zero;
  let a0 = a;
  let a1 = a + aM;
  let a2 = a1 + aM;
  let a3 = a2 + aM;
  let left = k;
  if (rows <= 2) {
    for (; left >= 16; left -= 16) {
      const v0 = v128.load(b), v1 = v128.load(b, 16), v2 = v128.load(b, 32), v3 = v128.load(b, 48);
      c00 = madd(v128.load(a0), v0, c00);
      c01 = madd(v128.load(a0, 16), v1, c01);
      c02 = madd(v128.load(a0, 32), v2, c02);
      c03 = madd(v128.load(a0, 48), v3, c03);
      if (rows > 1) {
        c10 = madd(v128.load(a1), v0, c10);
        c11 = madd(v128.load(a1, 16), v1, c11);
        c12 = madd(v128.load(a1, 32), v2, c12);
        c13 = madd(v128.load(a1, 48), v3, c13);
        a1 += 64;
      }
      a0 += 64;
      b += 64;
    }
    c00 = f32x4.add(c00, c02);
    c01 = f32x4.add(c01, c03);
    if (rows > 1) {
      c10 = f32x4.add(c10, c12);
      c11 = f32x4.add(c11, c13);
    }
  } else {
    for (; left >= 8; left -= 8) {
      const v0 = v128.load(b), v1 = v128.load(b, 16);
      c00 = madd(v128.load(a0), v0, c00);
      c01 = madd(v128.load(a0, 16), v1, c01);
      c10 = madd(v128.load(a1), v0, c10);
      c11 = madd(v128.load(a1, 16), v1, c11);
      c20 = madd(v128.load(a2), v0, c20);
      c21 = madd(v128.load(a2, 16), v1, c21);
      if (rows > 3) {
        c30 = madd(v128.load(a3), v0, c30);
        c31 = madd(v128.load(a3, 16), v1, c31);
        a3 += 32;
      }
      a0 += 32;
      a1 += 32;
      a2 += 32;
      b += 32;
    }
  }
  for (; left >= 4; left -= 4) {
    const v = v128.load(b);
    c00 = madd(v128.load(a0), v, c00);
    if (rows > 1) c10 = madd(v128.load(a1), v, c10);
    if (rows > 2) c20 = madd(v128.load(a2), v, c20);
    if (rows > 3) c30 = madd(v128.load(a3), v, c30);
    a0 += 16;
    if (rows > 1) a1 += 16;
    if (rows > 2) a2 += 16;
    if (rows > 3) a3 += 16;
    b += 16;
  }
  finishDot(out, base, f32x4.add(c00, c01), a0, b, left, alpha);
  if (rows > 1) finishDot(out + outM, base + baseM, f32x4.add(c10, c11), a1, b, left, alpha);
  if (rows > 2) finishDot(out + 2 * outM, base + 2 * baseM, f32x4.add(c20, c21), a2, b, left, alpha);
  if (rows > 3) finishDot(out + 3 * outM, base + 3 * baseM, f32x4.add(c30, c31), a3, b, left, alpha);
}

/** `rows` rows of A against all of transposed B, column by column. */
// @ts-ignore: decorator
@inline
function dotRows(
  rows: i32, out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize,
  b: usize, bN: usize, k: i32, n: i32, alpha: f32,
): void {
  const baseN: usize = base ? 4 : 0;
  if (!base) base = zeroRow(4);
  for (; n > 0; n--) {
    dots(rows, out, outM, base, baseM, a, aM, b, k, alpha);
    out += 4;
    base += baseN;
    b += bN;
  }
}

/** Few rows of A against transposed B, four at a time; a base of 0 is none. */
function thin(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize,
  b: usize, bN: usize, rows: i32, k: i32, n: i32, alpha: f32,
): void {
  for (; rows > 0; rows -= 4) {
    if (rows >= 4) dotRows(4, out, outM, base, baseM, a, aM, b, bN, k, n, alpha);
    else if (rows == 3) dotRows(3, out, outM, base, baseM, a, aM, b, bN, k, n, alpha);
    else if (rows == 2) dotRows(2, out, outM, base, baseM, a, aM, b, bN, k, n, alpha);
    else dotRows(1, out, outM, base, baseM, a, aM, b, bN, k, n, alpha);
    out += 4 * outM;
    if (base) base += 4 * baseM;
    a += 4 * aM;
  }
}

/** Blocks of B are packed one after the other, and all rows of A run past each; a base of 0 is none. */
function blocks(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, aK: usize,
  b: usize, bK: usize, bN: usize, rows: i32, k: i32, n: i32, alpha: f32,
): void {
  const isTransposed = aK != 4;
  const packedA = scratch + (BLOCK << 2);
  const widest = min(GEMM_COLS, BLOCK / min(KC, k) & ~15);
  for (let j = 0; j < n; j += widest) {
    const width = min(widest, n - j);
    const column = <usize>j << 2;
    let from = base ? base + column : zeroRow(width);
    let fromM = baseM;
    for (let p = 0; p < k; p += KC) {
      const depth = min(KC, k - p);
      pack(scratch, b + <usize>p * bK + <usize>j * bN, bK, bN, depth, width);
      for (let i = 0; i < rows; i += MC) {
        const row = <usize>i;
        const height = min(MC, rows - i);
        const to = out + row * outM + column;
        const x = a + row * aM + <usize>p * aK;
        if (isTransposed) {
          packRows(packedA, x, aK, height, depth);
          gemm(
            to, outM, from + row * fromM, fromM, packedA, 4, tile_rows << 2, packedTile(depth),
            scratch, 0, height, depth, width, alpha,
          );
        } else {
          gemm(to, outM, from + row * fromM, fromM, x, aM, aK, 0, scratch, 0, height, depth, width, alpha);
        }
      }
      from = out + column;
      fromM = outM;
    }
  }
}

/**
 * out(m, n) = alpha · A(m, k) · B(k, n) + base, or += without one. Strides in elements choose the transposition; a
 * batch stride of 0 shares the operand, a `base_m` of 0 the base's one row. Range: units of 16 columns of each batch
 * element, or of 48 rows where there are fewer than 64 columns, or fewer than rows and A is transposed.
 */
export function matmul(
  out: usize, a: usize, b: usize, base: usize,
  batch: u32, m: u32, k: u32, n: u32,
  a_batch: u32, a_m: u32, a_k: u32, b_batch: u32, b_k: u32, b_n: u32, out_batch: u32, out_m: u32, base_m: u32,
  has_base: u32, accumulate: u32,
  alpha: f32, begin: u32, end: u32,
): void {
  const aM = <usize>a_m << 2;
  const aK = <usize>a_k << 2;
  const bK = <usize>b_k << 2;
  const bN = <usize>b_n << 2;
  const outM = <usize>out_m << 2;
  // All threads pack the operand that is not divided, so where both are packed it is the smaller one.
  const byCols = n >= DIVIDED_COLS && (a_k == 1 || n >= m);
  const units = byCols ? (n + UNIT_COLS - 1) / UNIT_COLS : (m + UNIT_ROWS - 1) / UNIT_ROWS;
  const isThin = <i32>m <= THIN && a_k == 1 && b_k == 1;
  while (begin < end) {
    const index = begin / units;
    const first = begin - index * units;
    const last = min(units, first + end - begin);
    const row = byCols ? 0 : first * UNIT_ROWS;
    const column = byCols ? first * UNIT_COLS : 0;
    const rows = byCols ? m : min(m, last * UNIT_ROWS) - row;
    const cols = byCols ? min(n, last * UNIT_COLS) - column : n;
    const to = out + (<usize>index * out_batch << 2) + <usize>row * outM + (<usize>column << 2);
    const x = a + (<usize>index * a_batch << 2) + <usize>row * aM;
    const y = b + (<usize>index * b_batch << 2) + <usize>column * bN;
    const from = accumulate ? to : has_base ? base + (<usize>row * base_m + column << 2) : 0;
    const fromM = accumulate ? outM : <usize>base_m << 2;
    if (isThin) thin(to, outM, from, fromM, x, aM, y, bN, rows, k, cols, alpha);
    else blocks(to, outM, from, fromM, x, aM, aK, y, bK, bN, rows, k, cols, alpha);
    begin += last - first;
  }
}
