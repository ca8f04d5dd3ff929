import { expConstants, expTerm4, loadTail, log1, madd, splat, storeTail, sum4 } from "./simd";
import { rowMax, rowSumExp } from "./softmax";

/** x = e^(x - shift) over n floats, none above the shift; their sum. */
// @ts-ignore: decorator
@inline
function expInPlace(x: usize, n: u32, shift: f32, c: usize): f32 {
  const s = splat(shift);
  const stop = x + (<usize>n << 2 & ~15);
  let sum = splat(0);
  for (; x < stop; x += 16) {
    const e = expTerm4(f32x4.sub(v128.load(x), s), c);
    v128.store(x, e);
    sum = f32x4.add(sum, e);
  }
  const left = <i32>(n & 3);
  if (left) {
    const e = expTerm4(f32x4.sub(loadTail(x, left, -Infinity), s), c);
    storeTail(x, e, left);
    sum = f32x4.add(sum, e);
  }
  return sum4(sum);
}

/** x *= factor over n floats. */
// @ts-ignore: decorator
@inline
function scaleInPlace(x: usize, n: u32, factor: f32): void {
  const f = splat(factor);
  const end = x + (<usize>n << 2);
  for (; x + 16 <= end; x += 16) v128.store(x, f32x4.mul(v128.load(x), f));
  for (; x < end; x += 4) store<f32>(x, load<f32>(x) * factor);
}

/**
 * loss[r] = ln Σ e^logits - logits[target], in nats; with weights then logits = weights[r] · (softmax - one-hot),
 * the gradient in their own place. Range: rows.
 */
export function cross_entropy(
  loss: usize, logits: usize, targets: usize, weights: usize,
  rows: u32, cols: u32, has_weights: u32, begin: u32, end: u32,
): void {
  const c = expConstants();
  for (let row = begin; row < end; row++) {
    const x = logits + (<usize>row * cols << 2);
    const target = x + (<usize>load<u32>(targets + (<usize>row << 2)) << 2);
    const m = rowMax(x, cols);
    const targetLogit = load<f32>(target) - m;
    const weight = has_weights ? load<f32>(weights + (<usize>row << 2)) : 0;
    let sum: f32;
    if (weight != 0) {
      sum = expInPlace(x, cols, m, c);
      scaleInPlace(x, cols, weight / sum);
      store<f32>(target, load<f32>(target) - weight);
    } else {
      sum = rowSumExp(x, cols, m, c);
      if (has_weights) memory.fill(x, 0, <usize>cols << 2);
    }
    store<f32>(loss + (<usize>row << 2), log1(sum) - targetLogit);
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
function probability4(x: v128, max: v128, scale: v128, c: usize): v128 {
  return f32x4.mul(expTerm4(f32x4.sub(x, max), c), scale);
}

/**
 * loss[r] = KL(p ‖ q) of p = softmax(logits), q = softmax(ref_logits), in nats, or with `reverse` KL(q ‖ p);
 * with weights then logits = weights[r] · p · (ln p - ln q - KL), or weights[r] · (p - q), the gradient in their own
 * place. Range: rows.
 */
export function kl(
  loss: usize, logits: usize, ref_logits: usize, weights: usize,
  rows: u32, cols: u32, reverse: u32, has_weights: u32, begin: u32, end: u32,
): void {
  const c = expConstants();
  const bytes = <usize>cols << 2;
  const body = bytes & ~15;
  const left = <i32>(bytes - body >> 2);
  for (let row = begin; row < end; row++) {
    const at = <usize>row * bytes;
    const x = logits + at;
    const y = ref_logits + at;
    const xMax = rowMax(x, cols);
    const yMax = rowMax(y, cols);
    const xSum = rowSumExp(x, cols, xMax, c);
    const ySum = rowSumExp(y, cols, yMax, c);
    const xMax4 = splat(xMax);
    const yMax4 = splat(yMax);
    const xScale = splat(1 / xSum);
    const yScale = splat(1 / ySum);
    const shift = splat(log1(ySum) - log1(xSum));

    let sum = splat(0);
    for (let i: usize = 0; i < body; i += 16) {
      const xv = v128.load(x + i);
      const yv = v128.load(y + i);
      const p = reverse ? probability4(yv, yMax4, yScale, c) : probability4(xv, xMax4, xScale, c);
      sum = madd(p, logRatio4(xv, yv, xMax4, yMax4, shift), sum);
    }
    if (left) {
      const ratio = logRatio4(loadTail(x + body, left, xMax), loadTail(y + body, left, yMax), xMax4, yMax4, shift);
      const p = reverse
        ? probability4(loadTail(y + body, left, -Infinity), yMax4, yScale, c)
        : probability4(loadTail(x + body, left, -Infinity), xMax4, xScale, c);
      sum = madd(p, ratio, sum);
    }
    const divergence = reverse ? -sum4(sum) : sum4(sum);
    store<f32>(loss + (<usize>row << 2), divergence);

    if (!has_weights) continue;
    const weight = load<f32>(weights + (<usize>row << 2));
    if (weight == 0) {
      memory.fill(x, 0, bytes);
      continue;
    }
    const w4 = splat(weight);
    const kl4 = splat(divergence);
    for (let i: usize = 0; i < body; i += 16) {
      const xv = v128.load(x + i);
      const yv = v128.load(y + i);
      const p = probability4(xv, xMax4, xScale, c);
      const g = reverse
        ? f32x4.sub(p, probability4(yv, yMax4, yScale, c))
        : f32x4.mul(p, f32x4.sub(logRatio4(xv, yv, xMax4, yMax4, shift), kl4));
      v128.store(x + i, f32x4.mul(w4, g));
    }
    if (left) {
      const xv = loadTail(x + body, left, 0);
      const yv = loadTail(y + body, left, 0);
      const p = probability4(xv, xMax4, xScale, c);
      const g = reverse
        ? f32x4.sub(p, probability4(yv, yMax4, yScale, c))
        : f32x4.mul(p, f32x4.sub(logRatio4(xv, yv, xMax4, yMax4, shift), kl4));
      storeTail(x + body, f32x4.mul(w4, g), left);
    }
  }
}
