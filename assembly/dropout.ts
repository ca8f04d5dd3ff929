// Dropout whose mask is a function of a seed and the element's index, so that it is never stored. Range: elements.

import { loadTail, madd, splat, storeTail } from "./simd";

/** A bijection of 32 bits that leaves no trace of its order (Wellons, hash-prospector: bias 0.11). */
// @ts-ignore: decorator
@inline
function mix4(v: v128): v128 {
  v = i32x4.mul(v128.xor(v, i32x4.shr_u(v, 16)), i32x4.splat(0x21f0aaad));
  v = i32x4.mul(v128.xor(v, i32x4.shr_u(v, 15)), i32x4.splat(0xd35a2d97));
  return v128.xor(v, i32x4.shr_u(v, 15));
}

/** `scale` for elements i to i + 3, 0 for those among them that are dropped. */
// @ts-ignore: decorator
@inline
function factor4(i: u32, seed: u32, threshold: u32, scale: f32): v128 {
  const at = i32x4.add(i32x4.splat(i), i32x4(0, 1, 2, 3));
  const random = mix4(v128.xor(mix4(at), i32x4.splat(seed)));
  return v128.andnot(splat(scale), i32x4.lt_u(random, i32x4.splat(threshold)));
}

/** out = x · scale, or x · 0 where the element is dropped. */
export function dropout(
  out: usize, x: usize, n: u32, seed: u32, threshold: u32, scale: f32, begin: u32, end: u32,
): void {
  let i = begin;
  for (; i + 4 <= end; i += 4) {
    const at = <usize>i << 2;
    v128.store(out + at, f32x4.mul(v128.load(x + at), factor4(i, seed, threshold, scale)));
  }
  const at = <usize>i << 2;
  const left = <i32>(end - i);
  if (left > 0) storeTail(out + at, f32x4.mul(loadTail(x + at, left, 0), factor4(i, seed, threshold, scale)), left);
}

/** dx += dout · scale where the element was kept. */
export function dropout_backward(
  dx: usize, dout: usize, n: u32, seed: u32, threshold: u32, scale: f32, begin: u32, end: u32,
): void {
  let i = begin;
  for (; i + 4 <= end; i += 4) {
    const at = <usize>i << 2;
    v128.store(dx + at, madd(v128.load(dout + at), factor4(i, seed, threshold, scale), v128.load(dx + at)));
  }
  const at = <usize>i << 2;
  const left = <i32>(end - i);
  if (left > 0) {
    const factor = factor4(i, seed, threshold, scale);
    storeTail(dx + at, madd(loadTail(dout + at, left, 0), factor, loadTail(dx + at, left, 0)), left);
  }
}
