import { expTerm4, loadTail, log1, madd, splat, storeTail, sum4 } from "./simd";
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
      v128.store(d + i, madd(expTerm4(f32x4.sub(v128.load(x + i), shift)), scale, v128.load(d + i)));
    }
    const left = <i32>(bytes - i >> 2);
    if (left > 0) {
      storeTail(d + i, madd(expTerm4(f32x4.sub(loadTail(x + i, left, 0), shift)), scale, loadTail(d + i, left, 0)), left);
    }
    store<f32>(d + target, load<f32>(d + target) - weight);
  }
}

/** ln p - ln q, given the rows' maxima and ln Σ e^(y - yMax) - ln Σ e^(x - xMax). */
// @ts-ignore: decorator
@inline
function logRatio4(x: v128, y: v128, xMax: v128, yMax: v128, shift: v128): v128 {
  return f32x4.add(f32x4.sub(f32x4.sub(x, xMax), f32x4.sub(y, yMax)), shift);
}

/** e^(x - max) / Σ: through the maximum, as the log-sum-exp of large logits has lost their last digits. */
// @ts-ignore: decorator
@inline
function probability4(x: v128, max: v128, scale: v128): v128 {
  return f32x4.mul(expTerm4(f32x4.sub(x, max)), scale);
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
    const xSum = rowSumExp(x, cols, xMax);
    const ySum = rowSumExp(y, cols, yMax);
    const xMax4 = splat(xMax);
    const yMax4 = splat(yMax);
    const xScale = splat(1 / xSum);
    const yScale = splat(1 / ySum);
    const shift = splat(log1(ySum) - log1(xSum));

    let sum = splat(0);
    for (let i: usize = 0; i < body; i += 16) {
      const xv = v128.load(x + i);
      const yv = v128.load(y + i);
      const p = reverse ? probability4(yv, yMax4, yScale) : probability4(xv, xMax4, xScale);
      sum = madd(p, logRatio4(xv, yv, xMax4, yMax4, shift), sum);
    }
    if (left) {
      const ratio = logRatio4(loadTail(x + body, left, xMax), loadTail(y + body, left, yMax), xMax4, yMax4, shift);
      const p = reverse
        ? probability4(loadTail(y + body, left, -Infinity), yMax4, yScale)
        : probability4(loadTail(x + body, left, -Infinity), xMax4, xScale);
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
      const p = probability4(xv, xMax4, xScale);
      const g = reverse
        ? f32x4.sub(p, probability4(yv, yMax4, yScale))
        : f32x4.mul(p, f32x4.sub(logRatio4(xv, yv, xMax4, yMax4, shift), kl4));
      v128.store(d + i, madd(w4, g, v128.load(d + i)));
    }
    if (left) {
      const xv = loadTail(x + body, left, 0);
      const yv = loadTail(y + body, left, 0);
      const p = probability4(xv, xMax4, xScale);
      const g = reverse
        ? f32x4.sub(p, probability4(yv, yMax4, yScale))
        : f32x4.mul(p, f32x4.sub(logRatio4(xv, yv, xMax4, yMax4, shift), kl4));
      storeTail(d + body, madd(w4, g, loadTail(d + body, left, 0)), left);
    }
  }
}
