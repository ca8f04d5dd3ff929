import { loadTail, madd, splat, storeTail, sum4 } from "./simd";

/** out = x / rms(x) · weight, rstd (rows) = 1 / √(mean x² + eps). Range: rows. */
export function rmsnorm(
  out: usize, rstd: usize, x: usize, weight: usize, rows: u32, cols: u32, eps: f32, begin: u32, end: u32,
): void {
  const bytes = <usize>cols << 2;
  const body = bytes & ~15;
  const left = <i32>(bytes - body >> 2);
  for (let row = begin; row < end; row++) {
    const p = x + <usize>row * bytes;
    const o = out + <usize>row * bytes;
    let squares = splat(0);
    for (let i: usize = 0; i < body; i += 16) {
      const v = v128.load(p + i);
      squares = madd(v, v, squares);
    }
    if (left) {
      const v = loadTail(p + body, left, 0);
      squares = madd(v, v, squares);
    }
    const r: f32 = 1 / sqrt<f32>(sum4(squares) / <f32>cols + eps);
    store<f32>(rstd + (<usize>row << 2), r);
    const r4 = splat(r);
    for (let i: usize = 0; i < body; i += 16) {
      v128.store(o + i, f32x4.mul(f32x4.mul(v128.load(p + i), r4), v128.load(weight + i)));
    }
    if (left) {
      const v = f32x4.mul(f32x4.mul(loadTail(p + body, left, 0), r4), loadTail(weight + body, left, 0));
      storeTail(o + body, v, left);
    }
  }
}

/** dx += rstd · (g - x̂ · mean(g · x̂)), g = dout · weight, x̂ = x · rstd. Range: rows. */
export function rmsnorm_backward(
  dx: usize, dout: usize, x: usize, weight: usize, rstd: usize, rows: u32, cols: u32, begin: u32, end: u32,
): void {
  const bytes = <usize>cols << 2;
  const body = bytes & ~15;
  const left = <i32>(bytes - body >> 2);
  for (let row = begin; row < end; row++) {
    const at = <usize>row * bytes;
    const r = load<f32>(rstd + (<usize>row << 2));
    let dot = splat(0);
    for (let i: usize = 0; i < body; i += 16) {
      const g = f32x4.mul(v128.load(dout + at + i), v128.load(weight + i));
      dot = madd(g, v128.load(x + at + i), dot);
    }
    if (left) {
      const g = f32x4.mul(loadTail(dout + at + body, left, 0), loadTail(weight + body, left, 0));
      dot = madd(g, loadTail(x + at + body, left, 0), dot);
    }
    const r4 = splat(r);
    // r · dot first: r³ alone leaves f32 where x is large.
    const c4 = splat(-(r * sum4(dot)) / <f32>cols * r * r);
    for (let i: usize = 0; i < body; i += 16) {
      const g = f32x4.mul(f32x4.mul(v128.load(dout + at + i), v128.load(weight + i)), r4);
      v128.store(dx + at + i, f32x4.add(v128.load(dx + at + i), madd(c4, v128.load(x + at + i), g)));
    }
    if (left) {
      const g = f32x4.mul(f32x4.mul(loadTail(dout + at + body, left, 0), loadTail(weight + body, left, 0)), r4);
      const v = f32x4.add(loadTail(dx + at + body, left, 0), madd(c4, loadTail(x + at + body, left, 0), g));
      storeTail(dx + at + body, v, left);
    }
  }
}

/** dweight[c] += Σ dout · x · rstd over the rows. Range: cols. */
export function rmsnorm_backward_weight(
  dweight: usize, dout: usize, x: usize, rstd: usize, rows: u32, cols: u32, begin: u32, end: u32,
): void {
  const stride = <usize>cols << 2;
  for (let c = begin; c < end; c += 4) {
    const left = <i32>(end - c);
    const column = <usize>c << 2;
    let at = column;
    let sum = splat(0);
    for (let row: u32 = 0; row < rows; row++) {
      const r = v128.load_splat<f32>(rstd + (<usize>row << 2));
      if (left >= 4) sum = madd(f32x4.mul(v128.load(dout + at), v128.load(x + at)), r, sum);
      else sum = madd(f32x4.mul(loadTail(dout + at, left, 0), loadTail(x + at, left, 0)), r, sum);
      at += stride;
    }
    const p = dweight + column;
    if (left >= 4) v128.store(p, f32x4.add(v128.load(p), sum));
    else storeTail(p, f32x4.add(loadTail(p, left, 0), sum), left);
  }
}

/** out = (x - mean) · rstd · weight + bias; mean and rstd (rows) are saved. Range: rows. */
export function layernorm(
  out: usize, mean: usize, rstd: usize, x: usize, weight: usize, bias: usize,
  rows: u32, cols: u32, eps: f32, begin: u32, end: u32,
): void {
  const bytes = <usize>cols << 2;
  const body = bytes & ~15;
  const left = <i32>(bytes - body >> 2);
  for (let row = begin; row < end; row++) {
    const p = x + <usize>row * bytes;
    const o = out + <usize>row * bytes;
    let sum = splat(0);
    for (let i: usize = 0; i < body; i += 16) sum = f32x4.add(sum, v128.load(p + i));
    if (left) sum = f32x4.add(sum, loadTail(p + body, left, 0));
    const mu = sum4(sum) / <f32>cols;
    const mu4 = splat(mu);
    let squares = splat(0);
    for (let i: usize = 0; i < body; i += 16) {
      const v = f32x4.sub(v128.load(p + i), mu4);
      squares = madd(v, v, squares);
    }
    if (left) {
      const v = f32x4.sub(loadTail(p + body, left, mu), mu4);
      squares = madd(v, v, squares);
    }
    const r: f32 = 1 / sqrt<f32>(sum4(squares) / <f32>cols + eps);
    store<f32>(mean + (<usize>row << 2), mu);
    store<f32>(rstd + (<usize>row << 2), r);
    const r4 = splat(r);
    for (let i: usize = 0; i < body; i += 16) {
      const v = f32x4.mul(f32x4.sub(v128.load(p + i), mu4), r4);
      v128.store(o + i, madd(v, v128.load(weight + i), v128.load(bias + i)));
    }
    if (left) {
      const v = f32x4.mul(f32x4.sub(loadTail(p + body, left, 0), mu4), r4);
      storeTail(o + body, madd(v, loadTail(weight + body, left, 0), loadTail(bias + body, left, 0)), left);
    }
  }
}

/** dx += rstd · (g - mean(g) - x̂ · mean(g · x̂)), g = dout · weight, x̂ = (x - mean) · rstd. Range: rows. */
export function layernorm_backward(
  dx: usize, dout: usize, x: usize, weight: usize, mean: usize, rstd: usize,
  rows: u32, cols: u32, begin: u32, end: u32,
): void {
  const bytes = <usize>cols << 2;
  const body = bytes & ~15;
  const left = <i32>(bytes - body >> 2);
  for (let row = begin; row < end; row++) {
    const at = <usize>row * bytes;
    const mu = load<f32>(mean + (<usize>row << 2));
    const mu4 = splat(mu);
    const r4 = v128.load_splat<f32>(rstd + (<usize>row << 2));
    let sum = splat(0);
    let dot = splat(0);
    for (let i: usize = 0; i < body; i += 16) {
      const g = f32x4.mul(v128.load(dout + at + i), v128.load(weight + i));
      sum = f32x4.add(sum, g);
      dot = madd(g, f32x4.mul(f32x4.sub(v128.load(x + at + i), mu4), r4), dot);
    }
    if (left) {
      const g = f32x4.mul(loadTail(dout + at + body, left, 0), loadTail(weight + body, left, 0));
      sum = f32x4.add(sum, g);
      dot = madd(g, f32x4.mul(f32x4.sub(loadTail(x + at + body, left, mu), mu4), r4), dot);
    }
    const gMean = splat(sum4(sum) / <f32>cols);
    const dotMean = splat(sum4(dot) / <f32>cols);
    for (let i: usize = 0; i < body; i += 16) {
      const g = f32x4.mul(v128.load(dout + at + i), v128.load(weight + i));
      const xhat = f32x4.mul(f32x4.sub(v128.load(x + at + i), mu4), r4);
      const v = f32x4.sub(f32x4.sub(g, gMean), f32x4.mul(xhat, dotMean));
      v128.store(dx + at + i, madd(v, r4, v128.load(dx + at + i)));
    }
    if (left) {
      const g = f32x4.mul(loadTail(dout + at + body, left, 0), loadTail(weight + body, left, 0));
      const xhat = f32x4.mul(f32x4.sub(loadTail(x + at + body, left, mu), mu4), r4);
      const v = f32x4.sub(f32x4.sub(g, gMean), f32x4.mul(xhat, dotMean));
      storeTail(dx + at + body, madd(v, r4, loadTail(dx + at + body, left, 0)), left);
    }
  }
}

/** dweight[c] += Σ dout · x̂ and dbias[c] += Σ dout over the rows. Range: cols. */
export function layernorm_backward_weight(
  dweight: usize, dbias: usize, dout: usize, x: usize, mean: usize, rstd: usize,
  rows: u32, cols: u32, begin: u32, end: u32,
): void {
  const stride = <usize>cols << 2;
  for (let c = begin; c < end; c += 4) {
    const left = <i32>(end - c);
    const column = <usize>c << 2;
    let at = column;
    let dw = splat(0);
    let db = splat(0);
    for (let row: u32 = 0; row < rows; row++) {
      const mu4 = v128.load_splat<f32>(mean + (<usize>row << 2));
      const r4 = v128.load_splat<f32>(rstd + (<usize>row << 2));
      const g = left >= 4 ? v128.load(dout + at) : loadTail(dout + at, left, 0);
      const v = left >= 4 ? v128.load(x + at) : loadTail(x + at, left, 0);
      dw = madd(g, f32x4.mul(f32x4.sub(v, mu4), r4), dw);
      db = f32x4.add(db, g);
      at += stride;
    }
    if (left >= 4) {
      v128.store(dweight + column, f32x4.add(v128.load(dweight + column), dw));
      v128.store(dbias + column, f32x4.add(v128.load(dbias + column), db));
    } else {
      storeTail(dweight + column, f32x4.add(loadTail(dweight + column, left, 0), dw), left);
      storeTail(dbias + column, f32x4.add(loadTail(dbias + column, left, 0), db), left);
    }
  }
}
