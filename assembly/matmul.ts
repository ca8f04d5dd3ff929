// Matrix product. Many rows run on the register tile over packed blocks of B; few rows against transposed B are dot
// products, since packing would take longer. The work is divided by columns, so that no thread packs what another
// does, and by rows where there are few columns, or where A is packed too and is the larger.

import { dotColumn } from "./dot";
import { scratch } from "./simd";
import { gemm, GEMM_COLS, pack, packedTile, packRows, tile_rows, zeroRow } from "./tile";

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

/** Few rows of A against transposed B, column by column; a base of 0 is none. */
function thin(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize,
  b: usize, bN: usize, rows: i32, k: i32, n: i32, alpha: f32,
): void {
  const baseN: usize = base ? 4 : 0;
  if (!base) {
    base = zeroRow(4);
    baseM = 0;
  }
  for (; n > 0; n--) {
    dotColumn(out, outM, base, baseM, a, aM, b, rows, k, alpha);
    out += 4;
    base += baseN;
    b += bN;
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
