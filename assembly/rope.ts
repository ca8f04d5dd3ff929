import { madd } from "./simd";

/**
 * Turns one pair of halves by the angles of its position: (a, b) -> (a·cos - b·sin, b·cos + a·sin).
 * `sign` -1 turns back. `add` adds to what is there.
 */
// @ts-ignore: decorator
@inline
function rotate(to: usize, from: usize, cos: f32, sin: f32, partner: usize, add: bool): void {
  const a = load<f32>(from);
  const b = load<f32>(from + partner);
  let x = a * cos - b * sin;
  let y = b * cos + a * sin;
  if (add) {
    x += load<f32>(to);
    y += load<f32>(to + partner);
  }
  store<f32>(to, x);
  store<f32>(to + partner, y);
}

/** One head, half-split: pair i is (i, i + half). */
// @ts-ignore: decorator
@inline
function rotateHalves(to: usize, from: usize, cos: usize, sin: usize, half: u32, sign: f32, add: bool): void {
  const partner = <usize>half << 2;
  const sign4 = f32x4.splat(sign);
  let i: usize = 0;
  for (; i + 16 <= partner; i += 16) {
    const c = v128.load(cos + i);
    const s = f32x4.mul(v128.load(sin + i), sign4);
    const a = v128.load(from + i);
    const b = v128.load(from + i + partner);
    let x = f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s));
    let y = madd(a, s, f32x4.mul(b, c));
    if (add) {
      x = f32x4.add(x, v128.load(to + i));
      y = f32x4.add(y, v128.load(to + i + partner));
    }
    v128.store(to + i, x);
    v128.store(to + i + partner, y);
  }
  for (; i < partner; i += 4) {
    rotate(to + i, from + i, load<f32>(cos + i), sign * load<f32>(sin + i), partner, add);
  }
}

/** One head, interleaved: pair i is (2i, 2i + 1). */
// @ts-ignore: decorator
@inline
function rotatePairs(to: usize, from: usize, cos: usize, sin: usize, half: u32, sign: f32, add: bool): void {
  const bytes = <usize>half << 2;
  for (let i: usize = 0; i < bytes; i += 4) {
    rotate(to + 2 * i, from + 2 * i, load<f32>(cos + i), sign * load<f32>(sin + i), 4, add);
  }
}

// @ts-ignore: decorator
@inline
function turn(
  to: usize, from: usize, cos: usize, sin: usize,
  seq: u32, heads: u32, head_dim: u32, position: u32, interleaved: u32, sign: f32, add: bool, begin: u32, end: u32,
): void {
  const half = head_dim >> 1;
  const head = <usize>head_dim << 2;
  for (let row = begin; row < end; row++) {
    const angle = <usize>(position + row % seq) * half << 2;
    let at = <usize>row * heads * head;
    for (let h: u32 = 0; h < heads; h++) {
      if (interleaved) rotatePairs(to + at, from + at, cos + angle, sin + angle, half, sign, add);
      else rotateHalves(to + at, from + at, cos + angle, sin + angle, half, sign, add);
      at += head;
    }
  }
}

/**
 * out = x (batch, seq, heads, head_dim) turned by its positions, `position` being that of the first row.
 * cos, sin: tables (positions, head_dim / 2). Range: batch · seq.
 */
export function rope(
  out: usize, x: usize, cos: usize, sin: usize,
  batch: u32, seq: u32, heads: u32, head_dim: u32, position: u32, interleaved: u32, begin: u32, end: u32,
): void {
  turn(out, x, cos, sin, seq, heads, head_dim, position, interleaved, 1, false, begin, end);
}

/** dx += dout turned back. Range: batch · seq. */
export function rope_backward(
  dx: usize, dout: usize, cos: usize, sin: usize,
  batch: u32, seq: u32, heads: u32, head_dim: u32, position: u32, interleaved: u32, begin: u32, end: u32,
): void {
  turn(dx, dout, cos, sin, seq, heads, head_dim, position, interleaved, -1, true, begin, end);
}
