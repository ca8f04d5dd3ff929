// The register tile that every matrix product runs on: a few rows of A by 8 or 16 columns of B, the sums held in
// registers while k runs. B lies in panels as wide as the tile, so that one step of k reads it in a row; A is read
// where it lies, one broadcast a row. Strides are in bytes here.
//
// Every sum has one accumulator and takes k in order, so the tile's size never changes a bit.

import { CONSTANT_BYTES, madd, scratch, SCRATCH_BYTES, splat } from "./simd";

/**
 * The most rows of a tile and its columns; the host sets both to what it measured to be fastest, each thread's
 * alike. x64 has 16 vector registers: 6 × 8 takes 12 for sums, 2 for B and 1 for A where the multiply-add is fused,
 * 4 × 8 fits where the product needs one too. Paired into 256 bits by V8, 6 × 16 takes as many.
 */
export let tile_rows: i32 = ASC_FEATURE_RELAXED_SIMD ? 6 : 4;
export let tile_cols: i32 = 8;

/** Room at the end of scratch, before its constants: for a tile that hangs over the last column, and before it for a row of zeros. */
const EDGE_BYTES: i32 = 6 * 64;
/** Most columns of one `gemm`. */
export const GEMM_COLS: i32 = 512;

/** A row of zeros: the base of a product that is added to nothing. */
export function zeroRow(cols: i32): usize {
  const zeros = scratch + SCRATCH_BYTES - CONSTANT_BYTES - EDGE_BYTES - (GEMM_COLS << 2);
  memory.fill(zeros, 0, <usize>cols << 2);
  return zeros;
}

/**
 * `count` tiles one below the other: out(rows, 4 · vectors) = alpha · A(rows, k) · B(k, 4 · vectors) + base. A's rows
 * lie `aStride` apart with k in a row, or, `byColumns`, its columns with the rows in a row.
 *
 * A step of k is 20 instructions that compute, and what counts besides them is how few others there are: with a busy
 * neighbour on the same core the rate is that of the instructions, not of the multiply-adds (33 a step were 1.3 to 1.4
 * times as slow there, and as fast without one). So eight steps share the moves of A's pointers. The branch at the end
 * of each takes one and is needed: without it the optimiser nests the steps' sums, which then spill.
 *
 * All loads of a row of `base` come before its stores, and whole vectors alone are stored: V8's revectorisation needs
 * both to pair them.
 */
// @ts-ignore: decorator
@inline
function tiles(
  rows: i32, vectors: i32, byColumns: bool, out: usize, outM: usize, base: usize, baseM: usize,
  a: usize, aStride: usize, aTile: usize, b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  const end = b + <usize>k * bK;
  for (; count > 0; count--) {
    let a0 = a;
    let a1 = !byColumns && rows > 1 ? a0 + aStride : 0;
    let a2 = !byColumns && rows > 2 ? a1 + aStride : 0;
    let a3 = !byColumns && rows > 2 ? a2 + aStride : 0;
    let a4 = !byColumns && rows > 4 ? a3 + aStride : 0;
    let a5 = !byColumns && rows > 4 ? a4 + aStride : 0;
    const zero = splat(0);
    let c00 = zero, c01 = zero, c02 = zero, c03 = zero;
    let c10 = zero, c11 = zero, c12 = zero, c13 = zero;
    let c20 = zero, c21 = zero, c22 = zero, c23 = zero;
    let c30 = zero, c31 = zero, c32 = zero, c33 = zero;
    let c40 = zero, c41 = zero, c42 = zero, c43 = zero;
    let c50 = zero, c51 = zero, c52 = zero, c53 = zero;
    let p = b;
    while (p != end) {
      for (let step: usize = 0; unrolled(step < 8); step++) {
        const b0 = v128.load(p);
        const b1 = v128.load(p, 16);
        const b2 = vectors > 2 ? v128.load(p, 32) : zero;
        const b3 = vectors > 2 ? v128.load(p, 48) : zero;
        p += bK;
        let s = byColumns ? v128.load_splat<f32>(a0) : v128.load_splat<f32>(a0, 4 * step);
        c00 = madd(s, b0, c00);
        c01 = madd(s, b1, c01);
        if (vectors > 2) {
          c02 = madd(s, b2, c02);
          c03 = madd(s, b3, c03);
        }
        if (rows > 1) {
          s = byColumns ? v128.load_splat<f32>(a0, 4) : v128.load_splat<f32>(a1, 4 * step);
          c10 = madd(s, b0, c10);
          c11 = madd(s, b1, c11);
          if (vectors > 2) {
            c12 = madd(s, b2, c12);
            c13 = madd(s, b3, c13);
          }
        }
        if (rows > 2) {
          s = byColumns ? v128.load_splat<f32>(a0, 8) : v128.load_splat<f32>(a2, 4 * step);
          c20 = madd(s, b0, c20);
          c21 = madd(s, b1, c21);
          if (vectors > 2) {
            c22 = madd(s, b2, c22);
            c23 = madd(s, b3, c23);
          }
          s = byColumns ? v128.load_splat<f32>(a0, 12) : v128.load_splat<f32>(a3, 4 * step);
          c30 = madd(s, b0, c30);
          c31 = madd(s, b1, c31);
          if (vectors > 2) {
            c32 = madd(s, b2, c32);
            c33 = madd(s, b3, c33);
          }
        }
        if (rows > 4) {
          s = byColumns ? v128.load_splat<f32>(a0, 16) : v128.load_splat<f32>(a4, 4 * step);
          c40 = madd(s, b0, c40);
          c41 = madd(s, b1, c41);
          if (vectors > 2) {
            c42 = madd(s, b2, c42);
            c43 = madd(s, b3, c43);
          }
          s = byColumns ? v128.load_splat<f32>(a0, 20) : v128.load_splat<f32>(a5, 4 * step);
          c50 = madd(s, b0, c50);
          c51 = madd(s, b1, c51);
          if (vectors > 2) {
            c52 = madd(s, b2, c52);
            c53 = madd(s, b3, c53);
          }
        }
        if (byColumns) a0 += aStride;
        if (p == end) break;
      }
      if (!byColumns) {
        a0 += 32;
        if (rows > 1) a1 += 32;
        if (rows > 2) {
          a2 += 32;
          a3 += 32;
        }
        if (rows > 4) {
          a4 += 32;
          a5 += 32;
        }
      }
    }
    const scale = splat(alpha);
    finish(vectors, out, base, scale, c00, c01, c02, c03);
    if (rows > 1) finish(vectors, out + outM, base + baseM, scale, c10, c11, c12, c13);
    if (rows > 2) {
      finish(vectors, out + 2 * outM, base + 2 * baseM, scale, c20, c21, c22, c23);
      finish(vectors, out + 3 * outM, base + 3 * baseM, scale, c30, c31, c32, c33);
    }
    if (rows > 4) {
      finish(vectors, out + 4 * outM, base + 4 * baseM, scale, c40, c41, c42, c43);
      finish(vectors, out + 5 * outM, base + 5 * baseM, scale, c50, c51, c52, c53);
    }
    a += aTile;
    out += <usize>rows * outM;
    base += <usize>rows * baseM;
  }
}

/** One row of a finished tile: out = alpha · c + base. */
// @ts-ignore: decorator
@inline
function finish(vectors: i32, out: usize, base: usize, alpha: v128, c0: v128, c1: v128, c2: v128, c3: v128): void {
  const r0 = madd(alpha, c0, v128.load(base));
  const r1 = madd(alpha, c1, v128.load(base, 16));
  const r2 = vectors > 2 ? madd(alpha, c2, v128.load(base, 32)) : c2;
  const r3 = vectors > 2 ? madd(alpha, c3, v128.load(base, 48)) : c3;
  v128.store(out, r0);
  v128.store(out, r1, 16);
  if (vectors > 2) {
    v128.store(out, r2, 32);
    v128.store(out, r3, 48);
  }
}

function tiles1x8(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(1, 2, false, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles1x8T(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(1, 2, true, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles1x16(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(1, 4, false, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles1x16T(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(1, 4, true, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles2x8(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(2, 2, false, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles2x8T(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(2, 2, true, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles2x16(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(2, 4, false, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles2x16T(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(2, 4, true, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles4x8(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(4, 2, false, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles4x8T(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(4, 2, true, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles4x16(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(4, 4, false, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles4x16T(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(4, 4, true, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles6x8(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(6, 2, false, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles6x8T(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(6, 2, true, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles6x16(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(6, 4, false, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

function tiles6x16T(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aStride: usize, aTile: usize,
  b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  tiles(6, 4, true, out, outM, base, baseM, a, aStride, aTile, b, bK, k, count, alpha);
}

/** Tiles of one height (1, 2, 4 or 6) and width: the function that was compiled for them, T where A lies by columns. */
function tilesOf(
  height: i32, wide: bool, out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, aK: usize,
  aTile: usize, b: usize, bK: usize, k: i32, count: i32, alpha: f32,
): void {
  if (aK == 4) {
    if (wide) {
      if (height == 6) tiles6x16(out, outM, base, baseM, a, aM, aTile, b, bK, k, count, alpha);
      else if (height == 4) tiles4x16(out, outM, base, baseM, a, aM, aTile, b, bK, k, count, alpha);
      else if (height == 2) tiles2x16(out, outM, base, baseM, a, aM, aTile, b, bK, k, count, alpha);
      else tiles1x16(out, outM, base, baseM, a, aM, aTile, b, bK, k, count, alpha);
    } else {
      if (height == 6) tiles6x8(out, outM, base, baseM, a, aM, aTile, b, bK, k, count, alpha);
      else if (height == 4) tiles4x8(out, outM, base, baseM, a, aM, aTile, b, bK, k, count, alpha);
      else if (height == 2) tiles2x8(out, outM, base, baseM, a, aM, aTile, b, bK, k, count, alpha);
      else tiles1x8(out, outM, base, baseM, a, aM, aTile, b, bK, k, count, alpha);
    }
  } else if (wide) {
    if (height == 6) tiles6x16T(out, outM, base, baseM, a, aK, aTile, b, bK, k, count, alpha);
    else if (height == 4) tiles4x16T(out, outM, base, baseM, a, aK, aTile, b, bK, k, count, alpha);
    else if (height == 2) tiles2x16T(out, outM, base, baseM, a, aK, aTile, b, bK, k, count, alpha);
    else tiles1x16T(out, outM, base, baseM, a, aK, aTile, b, bK, k, count, alpha);
  } else {
    if (height == 6) tiles6x8T(out, outM, base, baseM, a, aK, aTile, b, bK, k, count, alpha);
    else if (height == 4) tiles4x8T(out, outM, base, baseM, a, aK, aTile, b, bK, k, count, alpha);
    else if (height == 2) tiles2x8T(out, outM, base, baseM, a, aK, aTile, b, bK, k, count, alpha);
    else tiles1x8T(out, outM, base, baseM, a, aK, aTile, b, bK, k, count, alpha);
  }
}

/** Copies `count` (1 to 15) floats. */
// @ts-ignore: decorator
@inline
function copyFloats(to: usize, from: usize, count: i32): void {
  for (; count >= 4; count -= 4) {
    v128.store(to, v128.load(from));
    to += 16;
    from += 16;
  }
  for (; count > 0; count--) {
    store<f32>(to, load<f32>(from));
    to += 4;
    from += 4;
  }
}

/** Tiles that hang over the last column: computed beside, and what belongs to the matrix copied. */
function edgeTiles(
  height: i32, wide: bool, out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, aK: usize,
  aTile: usize, b: usize, bK: usize, k: i32, cols: i32, count: i32, alpha: f32,
): void {
  const edge = scratch + SCRATCH_BYTES - CONSTANT_BYTES - EDGE_BYTES;
  for (; count > 0; count--) {
    for (let i = 0; i < height; i++) copyFloats(edge + (<usize>i << 6), base + <usize>i * baseM, cols);
    tilesOf(height, wide, edge, 64, edge, 64, a, aM, aK, 0, b, bK, k, 1, alpha);
    for (let i = 0; i < height; i++) copyFloats(out + <usize>i * outM, edge + (<usize>i << 6), cols);
    a += aTile;
    out += <usize>height * outM;
    base += <usize>height * baseM;
  }
}

/**
 * out(rows, cols) = alpha · A(rows, k) · B(k, cols) + base, where B lies in panels of `tile_cols` columns, the last
 * one of 8 where that is enough: as `pack` leaves them with `bK` 0, or a row-major matrix as it is with its rows `bK`
 * apart. A lies by rows (`aK` 4) or by columns (`aM` 4), as its strides say with `aTile` 0, or as `packRows` leaves
 * it: `aTile` bytes from one tile of rows to the next. A panel stays in the first-level cache while the rows run past.
 */
export function gemm(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, aK: usize, aTile: usize,
  b: usize, bK: usize, rows: i32, k: i32, cols: i32, alpha: f32,
): void {
  const nextTile = aTile ? aTile : <usize>tile_rows * aM;
  for (let j = 0; j < cols; j += tile_cols) {
    const width = min(tile_cols, cols - j);
    const wide = width > 8;
    const isWhole = width == 8 || width == 16;
    const step: usize = bK ? bK : wide ? 64 : 32;
    const column = <usize>j << 2;
    let to = out + column;
    let from = base + column;
    let x = a;
    let height = tile_rows;
    let left = rows;
    while (left > 0) {
      // Whole tiles, and then one each of 4, 2 and 1 rows.
      const count = left / height;
      if (count > 0) {
        if (isWhole) tilesOf(height, wide, to, outM, from, baseM, x, aM, aK, nextTile, b, step, k, count, alpha);
        else edgeTiles(height, wide, to, outM, from, baseM, x, aM, aK, nextTile, b, step, k, width, count, alpha);
        const done = count * height;
        to += <usize>done * outM;
        from += <usize>done * baseM;
        x += height == tile_rows ? <usize>count * nextTile : <usize>height * aM;
        left -= done;
      }
      height = height > 4 ? 4 : height >> 1;
    }
    b += bK ? <usize>tile_cols << 2 : <usize>k * step;
  }
}

/** Bytes of `depth` steps of a packed tile of rows. Half a line more, or the tiles' starts would share cache sets. */
// @ts-ignore: decorator
@inline
export function packedTile(depth: i32): usize {
  return <usize>(depth * tile_rows << 2) + 32;
}

/**
 * Packs transposed A (rows in a row for each k, `aK` apart) into tiles of `tile_rows`: `gemm` would touch a cache
 * line for every k, all of one set where `aK` is a power of two. May write 16 bytes past the last tile.
 */
export function packRows(to: usize, a: usize, aK: usize, rows: i32, k: i32): void {
  const tile = packedTile(k);
  const step = <usize>tile_rows << 2;
  for (; k > 0; k--) {
    let p = to;
    let q = a;
    for (let i = rows; i > 0; i -= tile_rows) {
      v128.store(p, v128.load(q));
      if (tile_rows > 4) v128.store64_lane(p, v128.load64_zero(q, 16), 0, 16);
      p += tile;
      q += step;
    }
    to += step;
    a += aK;
  }
}

/** Packs B(k, cols) into the panels of `gemm`, zeros where the last is not full. */
export function pack(to: usize, b: usize, bK: usize, bN: usize, k: i32, cols: i32): void {
  for (let j = 0; j < cols; j += tile_cols) {
    const width = min(tile_cols, cols - j);
    const step: usize = width > 8 ? 64 : 32;
    packHalf(to, step, b, bK, bN, k, min(8, width));
    if (width > 8) packHalf(to + 32, step, b + 8 * bN, bK, bN, k, width - 8);
    to += <usize>k * step;
    b += <usize>tile_cols * bN;
  }
}

/** 8 columns of a panel whose rows are `step` bytes. */
function packHalf(to: usize, step: usize, b: usize, bK: usize, bN: usize, k: i32, width: i32): void {
  if (width == 8 && bN == 4) packWide(to, step, b, bK, k);
  else if (width == 8 && bK == 4) packColumns(to, step, b, bN, k);
  else packAny(to, step, b, bK, bN, k, width);
}

/** From a row-major B: 8 floats in a row. */
// @ts-ignore: decorator
@inline
function packWide(to: usize, step: usize, b: usize, bK: usize, k: i32): void {
  for (; k > 0; k--) {
    v128.store(to, v128.load(b));
    v128.store(to, v128.load(b, 16), 16);
    to += step;
    b += bK;
  }
}

/** Transposes 4 rows of 4 at `b` (rows `bN` apart) into 4 steps of a panel at `to`. */
// @ts-ignore: decorator
@inline
function transpose4(to: usize, step: usize, b: usize, bN: usize): void {
  const r0 = v128.load(b);
  const r1 = v128.load(b + bN);
  const r2 = v128.load(b + 2 * bN);
  const r3 = v128.load(b + 3 * bN);
  const t0 = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
  const t1 = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
  const t2 = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
  const t3 = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<f64>(t0, t1, 0, 2));
  v128.store(to + step, v128.shuffle<f64>(t0, t1, 1, 3));
  v128.store(to + 2 * step, v128.shuffle<f64>(t2, t3, 0, 2));
  v128.store(to + 3 * step, v128.shuffle<f64>(t2, t3, 1, 3));
}

/** From a transposed B: k in a row for each of the 8 columns. */
// @ts-ignore: decorator
@inline
function packColumns(to: usize, step: usize, b: usize, bN: usize, k: i32): void {
  let i = 0;
  for (; i + 4 <= k; i += 4) {
    transpose4(to, step, b, bN);
    transpose4(to + 16, step, b + 4 * bN, bN);
    to += 4 * step;
    b += 16;
  }
  packAny(to, step, b, 4, bN, k - i, 8);
}

function packAny(to: usize, step: usize, b: usize, bK: usize, bN: usize, k: i32, width: i32): void {
  for (let i = 0; i < k; i++) {
    let p = b;
    for (let j = 0; j < width; j++) {
      store<f32>(to + (<usize>j << 2), load<f32>(p));
      p += bN;
    }
    for (let j = width; j < 8; j++) store<f32>(to + (<usize>j << 2), 0);
    to += step;
    b += bK;
  }
}
