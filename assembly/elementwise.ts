// Kernels that go over memory once, value by value. Range: elements, unless said otherwise.

import { loadTail, madd, splat, storeTail } from "./simd";

export function fill(out: usize, n: u32, value: f32, begin: u32, end: u32): void {
  const v = splat(value);
  let p = out + (<usize>begin << 2);
  const stop = out + (<usize>end << 2);
  for (; p + 16 <= stop; p += 16) v128.store(p, v);
  for (; p < stop; p += 4) store<f32>(p, value);
}

/** out = a + b. */
export function add(out: usize, a: usize, b: usize, n: u32, begin: u32, end: u32): void {
  let i = <usize>begin << 2;
  const stop = <usize>end << 2;
  for (; i + 16 <= stop; i += 16) v128.store(out + i, f32x4.add(v128.load(a + i), v128.load(b + i)));
  for (; i < stop; i += 4) store<f32>(out + i, load<f32>(a + i) + load<f32>(b + i));
}

/** dx += scale · dout. */
export function accumulate(dx: usize, dout: usize, n: u32, scale: f32, begin: u32, end: u32): void {
  const s = splat(scale);
  let i = <usize>begin << 2;
  const stop = <usize>end << 2;
  for (; i + 16 <= stop; i += 16) v128.store(dx + i, madd(s, v128.load(dout + i), v128.load(dx + i)));
  const left = <i32>(stop - i >> 2);
  if (left > 0) storeTail(dx + i, madd(s, loadTail(dout + i, left, 0), loadTail(dx + i, left, 0)), left);
}

/** out (rows, cols) = columns offset … offset + cols of x (rows, stride). Range: rows. */
export function slice(
  out: usize, x: usize, rows: u32, cols: u32, stride: u32, offset: u32, begin: u32, end: u32,
): void {
  const bytes = <usize>cols << 2;
  for (let row = begin; row < end; row++) {
    memory.copy(out + <usize>row * bytes, x + ((<usize>row * stride + offset) << 2), bytes);
  }
}

/** dx[…, offset + c] += dout[…, c]. Range: rows. */
export function slice_backward(
  dx: usize, dout: usize, rows: u32, cols: u32, stride: u32, offset: u32, begin: u32, end: u32,
): void {
  for (let row = begin; row < end; row++) {
    accumulate(dx + ((<usize>row * stride + offset) << 2), dout + (<usize>row * cols << 2), cols, 1, 0, cols);
  }
}

/** out[…, columns[c]] = x[…, c], out (rows, stride), x (rows, cols). Range: rows. */
export function columns(
  out: usize, x: usize, index: usize, rows: u32, cols: u32, stride: u32, begin: u32, end: u32,
): void {
  for (let row = begin; row < end; row++) {
    for (let c: u32 = 0; c < cols; c++) {
      const to = <usize>row * stride + load<u32>(index + (<usize>c << 2));
      store<f32>(out + (to << 2), load<f32>(x + ((<usize>row * cols + c) << 2)));
    }
  }
}

/** dx[…, c] += dout[…, columns[c]], which becomes 0: what was overwritten there gets no gradient. Range: rows. */
export function columns_backward(
  dx: usize, dout: usize, index: usize, rows: u32, cols: u32, stride: u32, begin: u32, end: u32,
): void {
  for (let row = begin; row < end; row++) {
    for (let c: u32 = 0; c < cols; c++) {
      const from = dout + ((<usize>row * stride + load<u32>(index + (<usize>c << 2))) << 2);
      const to = dx + ((<usize>row * cols + c) << 2);
      store<f32>(to, load<f32>(to) + load<f32>(from));
      store<f32>(from, 0);
    }
  }
}

/** dbias[c] += Σ dout[…, c]: the gradient of a bias. Range: cols. */
export function bias_backward(dbias: usize, dout: usize, rows: u32, cols: u32, begin: u32, end: u32): void {
  let c = begin;
  const stride = <usize>cols << 2;
  for (; c + 4 <= end; c += 4) {
    let p = dout + (<usize>c << 2);
    let sum = v128.load(dbias + (<usize>c << 2));
    for (let row: u32 = 0; row < rows; row++) {
      sum = f32x4.add(sum, v128.load(p));
      p += stride;
    }
    v128.store(dbias + (<usize>c << 2), sum);
  }
  for (; c < end; c++) {
    let p = dout + (<usize>c << 2);
    let sum = load<f32>(dbias + (<usize>c << 2));
    for (let row: u32 = 0; row < rows; row++) {
      sum += load<f32>(p);
      p += stride;
    }
    store<f32>(dbias + (<usize>c << 2), sum);
  }
}
