import { exp1, exp4, loadTail, log1, madd, splat, storeTail, sum4 } from "./simd";
import { rowMax, rowSumExp } from "./softmax";

/**
 * loss[r] = ln Σ e^logits - logits[target], in nats; dlogits += weights[r] · (softmax - one-hot). A weight of 0
 * leaves the row's gradient alone. Range: rows.
 */
export function cross_entropy(
  loss: usize, dlogits: usize, logits: usize, targets: usize, weights: usize,
  rows: u32, cols: u32, begin: u32, end: u32,
): void {
  for (let row = begin; row < end; row++) {
    const at = <usize>row * cols << 2;
    const x = logits + at;
    const d = dlogits + at;
    const weight = load<f32>(weights + (<usize>row << 2));
    const target = <usize>load<u32>(targets + (<usize>row << 2)) << 2;
    const m = rowMax(x, cols);
    const sum = rowSumExp(x, cols, m);
    store<f32>(loss + (<usize>row << 2), log1(sum) - (load<f32>(x + target) - m));
    if (weight == 0) continue;
    const shift = splat(m);
    const scale = splat(weight / sum);
    const bytes = <usize>cols << 2;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) {
      v128.store(d + i, madd(exp4(f32x4.sub(v128.load(x + i), shift)), scale, v128.load(d + i)));
    }
    const left = <i32>(bytes - i >> 2);
    if (left > 0) {
      storeTail(d + i, madd(exp4(f32x4.sub(loadTail(x + i, left, 0), shift)), scale, loadTail(d + i, left, 0)), left);
    }
    store<f32>(d + target, load<f32>(d + target) - weight);
  }
}

/** What a row's divergence is made of: p = e^(x - lseX) and ln p - ln q. */
// @ts-ignore: decorator
@inline
function logRatio4(x: v128, y: v128, shift: v128): v128 {
  return f32x4.add(f32x4.sub(x, y), shift);
}

/**
 * loss[r] = KL(p ‖ q) of p = softmax(logits), q = softmax(ref_logits), in nats, or with `reverse` KL(q ‖ p);
 * dlogits += weights[r] · p · (ln p - ln q - KL), or weights[r] · (p - q). Range: rows.
 */
export function kl(
  loss: usize, dlogits: usize, logits: usize, ref_logits: usize, weights: usize,
  rows: u32, cols: u32, reverse: u32, begin: u32, end: u32,
): void {
  const bytes = <usize>cols << 2;
  const body = bytes & ~15;
  const left = <i32>(bytes - body >> 2);
  for (let row = begin; row < end; row++) {
    const at = <usize>row * bytes;
    const x = logits + at;
    const y = ref_logits + at;
    const d = dlogits + at;
    const xMax = rowMax(x, cols);
    const yMax = rowMax(y, cols);
    const lseX = log1(rowSumExp(x, cols, xMax)) + xMax;
    const lseY = log1(rowSumExp(y, cols, yMax)) + yMax;
    const lseX4 = splat(lseX);
    const lseY4 = splat(lseY);
    const shift = splat(lseY - lseX);

    let sum = splat(0);
    for (let i: usize = 0; i < body; i += 16) {
      const ratio = logRatio4(v128.load(x + i), v128.load(y + i), shift);
      const p = exp4(reverse ? f32x4.sub(v128.load(y + i), lseY4) : f32x4.sub(v128.load(x + i), lseX4));
      sum = madd(p, ratio, sum);
    }
    if (left) {
      const ratio = logRatio4(loadTail(x + body, left, lseX), loadTail(y + body, left, lseY), shift);
      const p = exp4(
        reverse
          ? f32x4.sub(loadTail(y + body, left, -Infinity), lseY4)
          : f32x4.sub(loadTail(x + body, left, -Infinity), lseX4),
      );
      sum = madd(p, ratio, sum);
    }
    const divergence = reverse ? -sum4(sum) : sum4(sum);
    store<f32>(loss + (<usize>row << 2), divergence);

    const weight = load<f32>(weights + (<usize>row << 2));
    if (weight == 0) continue;
    const w4 = splat(weight);
    const kl4 = splat(divergence);
    for (let i: usize = 0; i < body; i += 16) {
      const xv = v128.load(x + i);
      const yv = v128.load(y + i);
      const p = exp4(f32x4.sub(xv, lseX4));
      const g = reverse
        ? f32x4.sub(p, exp4(f32x4.sub(yv, lseY4)))
        : f32x4.mul(p, f32x4.sub(logRatio4(xv, yv, shift), kl4));
      v128.store(d + i, madd(w4, g, v128.load(d + i)));
    }
    if (left) {
      const xv = loadTail(x + body, left, 0);
      const yv = loadTail(y + body, left, 0);
      const p = exp4(f32x4.sub(xv, lseX4));
      const g = reverse
        ? f32x4.sub(p, exp4(f32x4.sub(yv, lseY4)))
        : f32x4.mul(p, f32x4.sub(logRatio4(xv, yv, shift), kl4));
      storeTail(d + body, madd(w4, g, loadTail(d + body, left, 0)), left);
    }
  }
}
