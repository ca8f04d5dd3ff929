import { loadTail, madd, splat, storeTail, sum4 } from "./simd";

/** Elements that one partial sum of `squared_norm` covers. */
export const NORM_BLOCK: u32 = 4096;

/** partials[i] = Σ x² over block i of 4096 elements. Range: blocks. */
export function squared_norm(partials: usize, x: usize, n: u32, begin: u32, end: u32): void {
  for (let block = begin; block < end; block++) {
    const first = block * NORM_BLOCK;
    const bytes = <usize>min(NORM_BLOCK, n - first) << 2;
    const p = x + (<usize>first << 2);
    let sum = splat(0);
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) {
      const v = v128.load(p + i);
      sum = madd(v, v, sum);
    }
    const left = <i32>(bytes - i >> 2);
    if (left > 0) {
      const v = loadTail(p + i, left, 0);
      sum = madd(v, v, sum);
    }
    store<f32>(partials + (<usize>block << 2), sum4(sum));
  }
}

/**
 * One step of AdamW (decoupled decay, Loshchilov and Hutter 2019, as PyTorch computes it) on n values:
 * m, v: moments; rest1, rest2: 1 - beta, which f32 would round by 1e-5; correction1, correction2: 1 - beta^step; grad_scale multiplies the gradient first (clipping).
 * Range: elements.
 */
export function adamw(
  param: usize, m: usize, v: usize, grad: usize, n: u32,
  lr: f32, beta1: f32, rest1: f32, beta2: f32, rest2: f32, eps: f32, weight_decay: f32,
  correction1: f32, correction2: f32, grad_scale: f32,
  begin: u32, end: u32,
): void {
  const b1 = splat(beta1);
  const b2 = splat(beta2);
  const b1rest = splat(rest1);
  const b2rest = splat(rest2);
  const keep = splat(1 - lr * weight_decay);
  const rate = splat(-lr / correction1);
  const root = splat(1 / sqrt<f32>(correction2));
  const eps4 = splat(eps);
  const scale = splat(grad_scale);
  let i = <usize>begin << 2;
  const stop = <usize>end << 2;
  for (; i < stop; i += 16) {
    const left = <i32>(stop - i >> 2);
    const full = left >= 4;
    const g = f32x4.mul(full ? v128.load(grad + i) : loadTail(grad + i, left, 0), scale);
    const m4 = madd(b1, full ? v128.load(m + i) : loadTail(m + i, left, 0), f32x4.mul(b1rest, g));
    const v4 = madd(b2, full ? v128.load(v + i) : loadTail(v + i, left, 0), f32x4.mul(b2rest, f32x4.mul(g, g)));
    const denominator = madd(f32x4.sqrt(v4), root, eps4);
    const p = f32x4.mul(full ? v128.load(param + i) : loadTail(param + i, left, 0), keep);
    const updated = madd(rate, f32x4.div(m4, denominator), p);
    if (full) {
      v128.store(m + i, m4);
      v128.store(v + i, v4);
      v128.store(param + i, updated);
    } else {
      storeTail(m + i, m4, left);
      storeTail(v + i, v4, left);
      storeTail(param + i, updated, left);
    }
  }
}
