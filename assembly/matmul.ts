// Matrix product. Three paths by shape: many rows run on the register tile over packed blocks of B; few rows
// against transposed B are dot products, since packing would take longer; the work is divided by columns, so that
// no thread packs what another does, and by rows only where there are few columns.

import { gemm, GEMM_COLS, pack, packedTile, packRows, tile_rows, zeroRow } from "./tile";
import { loadTail, madd, scratch, splat, storeTail } from "./simd";

/** Depth of a packed block: 16 columns by 256 are 16 KiB and stay in the first-level cache. */
const KC: i32 = 256;
/** Columns of a packed block: 256 by 512 floats are 512 KiB and stay in the second-level cache. */
const NC: i32 = GEMM_COLS;
/** Rows of A that a block is multiplied with in a turn: 192 by 256 floats share that cache with it. */
const MC: i32 = 192;
/**
 * Up to this many rows of A against transposed B, packing costs more than it saves. What counts is the rows of the
 * matrix, not of the range, so that the bits do not depend on how the work is divided.
 */
const THIN: i32 = 8;
/** Columns and rows of one unit of the range, and the least columns that are divided rather than rows. */
const UNIT_COLS: u32 = 16;
const UNIT_ROWS: u32 = 48;
const DIVIDED_COLS: u32 = 64;

/** The sums of four vectors, one a lane. */
// @ts-ignore: decorator
@inline
function sums4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f64>(ab, cd, 0, 2), v128.shuffle<f64>(ab, cd, 1, 3));
}

/** The last 1 to 3 products of a dot product, added in order. */
// @ts-ignore: decorator
@inline
function dotTail(a: usize, b: usize, count: i32): f32 {
  let sum: f32 = 0;
  for (; count > 0; count--) {
    sum += load<f32>(a) * load<f32>(b);
    a += 4;
    b += 4;
  }
  return sum;
}

// @ts-ignore: decorator
@inline
function dotTails(a: usize, b0: usize, b1: usize, b2: usize, b3: usize, count: i32): v128 {
  let tail = splat(dotTail(a, b0, count));
  tail = f32x4.replace_lane(tail, 1, dotTail(a, b1, count));
  tail = f32x4.replace_lane(tail, 2, dotTail(a, b2, count));
  return f32x4.replace_lane(tail, 3, dotTail(a, b3, count));
}

/** out = alpha · dots + base for the first `cols` (1 to 4) columns. */
// @ts-ignore: decorator
@inline
function finishDots(out: usize, base: usize, dots: v128, alpha: f32, cols: i32): void {
  if (cols == 4) {
    v128.store(out, madd(splat(alpha), dots, v128.load(base)));
  } else {
    storeTail(out, madd(splat(alpha), dots, loadTail(base, cols, 0)), cols);
  }
}

/**
 * `rows` (1 to 3) rows of A by four columns of B, as dot products along k: each vector of B is loaded once for all
 * rows, and nothing is packed. Columns past the end repeat the last and are not stored.
 */
// @ts-ignore: decorator
@inline
function dots(
  rows: i32, out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize,
  b: usize, bN: usize, k: i32, cols: i32, alpha: f32,
): void {
  const b1 = cols > 1 ? b + bN : b;
  const b2 = cols > 2 ? b1 + bN : b1;
  const b3 = cols > 3 ? b2 + bN : b2;
  const zero = splat(0);
  let c00 = zero, c01 = zero, c02 = zero, c03 = zero;
  let c10 = zero, c11 = zero, c12 = zero, c13 = zero;
  let c20 = zero, c21 = zero, c22 = zero, c23 = zero;
  const a1 = a + aM;
  const a2 = a1 + aM;
  let i: usize = 0;
  for (const end = <usize>(k & ~3) << 2; i < end; i += 16) {
    const v0 = v128.load(b + i);
    const v1 = v128.load(b1 + i);
    const v2 = v128.load(b2 + i);
    const v3 = v128.load(b3 + i);
    let x = v128.load(a + i);
    c00 = madd(x, v0, c00);
    c01 = madd(x, v1, c01);
    c02 = madd(x, v2, c02);
    c03 = madd(x, v3, c03);
    if (rows > 1) {
      x = v128.load(a1 + i);
      c10 = madd(x, v0, c10);
      c11 = madd(x, v1, c11);
      c12 = madd(x, v2, c12);
      c13 = madd(x, v3, c13);
    }
    if (rows > 2) {
      x = v128.load(a2 + i);
      c20 = madd(x, v0, c20);
      c21 = madd(x, v1, c21);
      c22 = madd(x, v2, c22);
      c23 = madd(x, v3, c23);
    }
  }
  let s0 = sums4(c00, c01, c02, c03);
  let s1 = rows > 1 ? sums4(c10, c11, c12, c13) : zero;
  let s2 = rows > 2 ? sums4(c20, c21, c22, c23) : zero;
  const left = k & 3;
  if (left) {
    s0 = f32x4.add(s0, dotTails(a + i, b + i, b1 + i, b2 + i, b3 + i, left));
    if (rows > 1) s1 = f32x4.add(s1, dotTails(a1 + i, b + i, b1 + i, b2 + i, b3 + i, left));
    if (rows > 2) s2 = f32x4.add(s2, dotTails(a2 + i, b + i, b1 + i, b2 + i, b3 + i, left));
  }
  finishDots(out, base, s0, alpha, cols);
  if (rows > 1) finishDots(out + outM, base + baseM, s1, alpha, cols);
  if (rows > 2) finishDots(out + 2 * outM, base + 2 * baseM, s2, alpha, cols);
}

function dots1(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize,
  b: usize, bN: usize, k: i32, cols: i32, alpha: f32,
): void {
  dots(1, out, outM, base, baseM, a, aM, b, bN, k, cols, alpha);
}

function dots2(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize,
  b: usize, bN: usize, k: i32, cols: i32, alpha: f32,
): void {
  dots(2, out, outM, base, baseM, a, aM, b, bN, k, cols, alpha);
}

function dots3(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize,
  b: usize, bN: usize, k: i32, cols: i32, alpha: f32,
): void {
  dots(3, out, outM, base, baseM, a, aM, b, bN, k, cols, alpha);
}

/** Few rows of A against transposed B; a base of 0 is none. */
function thin(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize,
  b: usize, bN: usize, rows: i32, k: i32, n: i32, alpha: f32,
): void {
  const baseStep: usize = base ? 16 : 0;
  if (!base) base = zeroRow(4);
  for (let j = 0; j < n; j += 4) {
    const cols = min(4, n - j);
    let i = 0;
    let to = out;
    let from = base;
    let x = a;
    for (; i + 3 <= rows; i += 3) {
      dots3(to, outM, from, baseM, x, aM, b, bN, k, cols, alpha);
      to += 3 * outM;
      from += 3 * baseM;
      x += 3 * aM;
    }
    if (rows - i == 2) dots2(to, outM, from, baseM, x, aM, b, bN, k, cols, alpha);
    else if (rows - i == 1) dots1(to, outM, from, baseM, x, aM, b, bN, k, cols, alpha);
    out += 16;
    base += baseStep;
    b += 4 * bN;
  }
}

/** Blocks of B are packed one after the other, and all rows of A run past each; a base of 0 is none. */
function blocks(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, aK: usize,
  b: usize, bK: usize, bN: usize, rows: i32, k: i32, n: i32, alpha: f32,
): void {
  const isTransposed = aK != 4;
  const packedA = scratch + <usize>(KC * NC << 2);
  for (let j = 0; j < n; j += NC) {
    const width = min(NC, n - j);
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
 * batch stride of 0 shares the operand, a `base_m` of 0 the base's one row. Range: units of 16 columns, or of 48
 * rows where there are fewer than 64 columns, of each batch element.
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
  const byCols = n >= DIVIDED_COLS;
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
