// Products with weights as they are stored, decoded on the way into the product and never as a whole matrix.

import { bytesOf, decode } from "./quant";
import { fewRows } from "./quant-dot";
import { scratch } from "./simd";
import { gemm, pack, zeroRow } from "./tile";

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
 * out(rows, cols) = A(rows, depth) · B(depth, cols) + base with B from the decoded part, strides bK and bN, and a
 * base of 0 for none: the one place that knows the register tile.
 */
function multiply(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, bK: usize, bN: usize,
  rows: i32, depth: i32, cols: i32,
): void {
  pack(scratch, scratch + DECODED, bK, bN, depth, cols);
  gemm(out, outM, base ? base : zeroRow(cols), baseM, a, aM, 4, 0, scratch, 0, rows, depth, cols, 1);
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
