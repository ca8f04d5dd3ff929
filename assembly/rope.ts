import { madd } from "./simd";

/** Turns one pair of numbers, `partner` bytes apart: (a, b) -> (a·cos - b·sin, b·cos + a·sin). */
// @ts-ignore: decorator
@inline
function rotate(x: usize, cos: f32, sin: f32, partner: usize): void {
  const a = load<f32>(x);
  const b = load<f32>(x + partner);
  store<f32>(x, a * cos - b * sin);
  store<f32>(x + partner, b * cos + a * sin);
}

/** The rotated numbers of a head, half-split: pair i is (i, i + half). */
// @ts-ignore: decorator
@inline
function rotateHalves(x: usize, cos: usize, sin: usize, half: u32, sign: f32): void {
  const partner = <usize>half << 2;
  const sign4 = f32x4.splat(sign);
  let i: usize = 0;
  for (; i + 16 <= partner; i += 16) {
    const c = v128.load(cos + i);
    const s = f32x4.mul(v128.load(sin + i), sign4);
    const a = v128.load(x + i);
    const b = v128.load(x + i + partner);
    v128.store(x + i, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
    v128.store(x + i + partner, madd(a, s, f32x4.mul(b, c)));
  }
  for (; i < partner; i += 4) rotate(x + i, load<f32>(cos + i), sign * load<f32>(sin + i), partner);
}

/** The rotated numbers of a head, interleaved: pair i is (2i, 2i + 1). */
// @ts-ignore: decorator
@inline
function rotatePairs(x: usize, cos: usize, sin: usize, half: u32, sign: f32): void {
  const bytes = <usize>half << 2;
  for (let i: usize = 0; i < bytes; i += 4) {
    rotate(x + 2 * i, load<f32>(cos + i), sign * load<f32>(sin + i), 4);
  }
}

/**
 * Turns the first rotary_dim numbers of the heads of x (batch, seq, heads, head_dim) in place by their positions, those
 * of the first rows being `position`, or positions[b] where there are such (batch); with `inverse` it turns back.
 * cos, sin: tables (positions, rotary_dim / 2). Range: batch · seq.
 */
export function rope(
  x: usize, cos: usize, sin: usize, positions: usize,
  batch: u32, seq: u32, heads: u32, head_dim: u32, rotary_dim: u32, position: u32, interleaved: u32, inverse: u32,
  has_positions: u32, begin: u32, end: u32,
): void {
  const half = rotary_dim >> 1;
  const head = <usize>head_dim << 2;
  const sign: f32 = inverse ? -1 : 1;
  for (let row = begin; row < end; row++) {
    const b = row / seq;
    const first = has_positions ? load<u32>(positions + (<usize>b << 2)) : position;
    const angle = <usize>(first + row - b * seq) * half << 2;
    let at = x + <usize>row * heads * head;
    for (let h: u32 = 0; h < heads; h++) {
      if (interleaved) rotatePairs(at, cos + angle, sin + angle, half, sign);
      else rotateHalves(at, cos + angle, sin + angle, half, sign);
      at += head;
    }
  }
}
