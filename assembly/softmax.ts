import { exp4, expConstants, expTerm4, larger4, loadTail, madd, max4, splat, storeTail, sum4 } from "./simd";

/** The largest of n floats. */
export function rowMax(x: usize, n: u32): f32 {
  let m4 = splat(-Infinity);
  let i: u32 = 0;
  for (; i + 4 <= n; i += 4) {
    m4 = larger4(m4, v128.load(x));
    x += 16;
  }
  if (i < n) m4 = larger4(m4, loadTail(x, n - i, -Infinity));
  return max4(m4);
}

/** Σ e^(x - shift) over n floats, none above the shift. */
export function rowSumExp(x: usize, n: u32, shift: f32, c: usize): f32 {
  const s = splat(shift);
  let sum = splat(0);
  let i: u32 = 0;
  for (; i + 4 <= n; i += 4) {
    sum = f32x4.add(sum, expTerm4(f32x4.sub(v128.load(x), s), c));
    x += 16;
  }
  if (i < n) sum = f32x4.add(sum, expTerm4(f32x4.sub(loadTail(x, n - i, -Infinity), s), c));
  return sum4(sum);
}

/** out = softmax of each row of x (rows, cols). Range: rows. */
export function softmax(out: usize, x: usize, rows: u32, cols: u32, begin: u32, end: u32): void {
  const c = expConstants();
  for (let row = begin; row < end; row++) {
    let p = x + (<usize>row * cols << 2);
    let o = out + (<usize>row * cols << 2);
    const m = rowMax(p, cols);
    const shift = splat(m);
    const scale = splat(1 / rowSumExp(p, cols, m, c));
    let i: u32 = 0;
    for (; i + 4 <= cols; i += 4) {
      v128.store(o, f32x4.mul(exp4(f32x4.sub(v128.load(p), shift), c), scale));
      p += 16;
      o += 16;
    }
    if (i < cols) storeTail(o, f32x4.mul(exp4(f32x4.sub(loadTail(p, cols - i, 0), shift), c), scale), cols - i);
  }
}

/** dx += out · (dout - Σ dout · out), row by row. Range: rows. */
export function softmax_backward(
  dx: usize, dout: usize, out: usize, rows: u32, cols: u32, begin: u32, end: u32,
): void {
  for (let row = begin; row < end; row++) {
    const at = <usize>row * cols << 2;
    const bytes = <usize>cols << 2;
    let dot4 = splat(0);
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) dot4 = madd(v128.load(dout + at + i), v128.load(out + at + i), dot4);
    const left = <i32>(bytes - i >> 2);
    if (left > 0) dot4 = madd(loadTail(dout + at + i, left, 0), loadTail(out + at + i, left, 0), dot4);
    const dot = splat(sum4(dot4));
    i = 0;
    for (; i + 16 <= bytes; i += 16) {
      const g = f32x4.sub(v128.load(dout + at + i), dot);
      v128.store(dx + at + i, madd(v128.load(out + at + i), g, v128.load(dx + at + i)));
    }
    if (left > 0) {
      const g = f32x4.sub(loadTail(dout + at + i, left, 0), dot);
      storeTail(dx + at + i, madd(loadTail(out + at + i, left, 0), g, loadTail(dx + at + i, left, 0)), left);
    }
  }
}
