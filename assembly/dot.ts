// Few rows of A against transposed B: dot products along k. Nothing is packed, which would take longer.

import { madd, splat, sum4 } from "./simd";

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
 * all rows. Each row has two sums, or four where the rows are so few that the processor would wait for them.
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

/**
 * Any number of rows of A, `aM` bytes apart, by a column of transposed B, four at a time: the column comes from memory
 * once. Columns go one after the other, since several streams from memory are slower than one (288 by 32,000 weights
 * come at 21 GB/s, four columns at a time at 11, measured). Every row of `out` and of `base` takes one float.
 */
// @ts-ignore: decorator
@inline
export function dotColumn(
  out: usize, outM: usize, base: usize, baseM: usize, a: usize, aM: usize, b: usize, rows: i32, k: i32, alpha: f32,
): void {
  for (; rows >= 4; rows -= 4) {
    dots(4, out, outM, base, baseM, a, aM, b, k, alpha);
    out += 4 * outM;
    base += 4 * baseM;
    a += 4 * aM;
  }
  if (rows == 3) dots(3, out, outM, base, baseM, a, aM, b, k, alpha);
  else if (rows == 2) dots(2, out, outM, base, baseM, a, aM, b, k, alpha);
  else if (rows == 1) dots(1, out, outM, base, baseM, a, aM, b, k, alpha);
}
