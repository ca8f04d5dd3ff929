import { exp4, expConstants, loadTail, madd, sigmoid4, splat, storeTail } from "./simd";

// @ts-ignore: decorator
@inline
function swiglu4(gate: v128, up: v128, c: usize): v128 {
  return f32x4.mul(f32x4.mul(gate, sigmoid4(gate, c)), up);
}

/** out = gate · σ(gate) · up. Range: elements. */
export function swiglu(out: usize, gate: usize, up: usize, n: u32, begin: u32, end: u32): void {
  const c = expConstants();
  let i = <usize>begin << 2;
  const stop = <usize>end << 2;
  for (; i + 16 <= stop; i += 16) v128.store(out + i, swiglu4(v128.load(gate + i), v128.load(up + i), c));
  const left = <i32>(stop - i >> 2);
  if (left > 0) storeTail(out + i, swiglu4(loadTail(gate + i, left, 0), loadTail(up + i, left, 0), c), left);
}

/** d(gate · σ(gate)) / dgate = s + gate · s · (1 - s). */
// @ts-ignore: decorator
@inline
function siluSlope(gate: v128, s: v128): v128 {
  return madd(f32x4.mul(gate, s), f32x4.sub(splat(1), s), s);
}

/** gate = dout · up · silu'(gate), up = dout · silu(gate): the gradients in their own place. Range: elements. */
export function swiglu_backward(gate: usize, up: usize, dout: usize, n: u32, begin: u32, end: u32): void {
  const c = expConstants();
  let i = <usize>begin << 2;
  const stop = <usize>end << 2;
  for (; i + 16 <= stop; i += 16) {
    const g = v128.load(gate + i);
    const d = v128.load(dout + i);
    const s = sigmoid4(g, c);
    v128.store(gate + i, f32x4.mul(f32x4.mul(d, v128.load(up + i)), siluSlope(g, s)));
    v128.store(up + i, f32x4.mul(d, f32x4.mul(g, s)));
  }
  const left = <i32>(stop - i >> 2);
  if (left > 0) {
    const g = loadTail(gate + i, left, 0);
    const d = loadTail(dout + i, left, 0);
    const s = sigmoid4(g, c);
    storeTail(gate + i, f32x4.mul(f32x4.mul(d, loadTail(up + i, left, 0)), siluSlope(g, s)), left);
    storeTail(up + i, f32x4.mul(d, f32x4.mul(g, s)), left);
  }
}

/** The same of rows x (rows, 2 · cols) = gate, up: out (rows, cols). Range: rows. */
export function swiglu_fused(out: usize, x: usize, rows: u32, cols: u32, begin: u32, end: u32): void {
  const bytes = <usize>cols << 2;
  for (let row = <usize>begin; row < <usize>end; row++) {
    const gate = x + 2 * row * bytes;
    swiglu(out + row * bytes, gate, gate + bytes, cols, 0, cols);
  }
}

/** x = the gradients of its gate and up, from dout (rows, cols). Range: rows. */
export function swiglu_fused_backward(x: usize, dout: usize, rows: u32, cols: u32, begin: u32, end: u32): void {
  const bytes = <usize>cols << 2;
  for (let row = <usize>begin; row < <usize>end; row++) {
    const gate = x + 2 * row * bytes;
    swiglu_backward(gate, gate + bytes, dout + row * bytes, cols, 0, cols);
  }
}

/** 2·√(2/π) and its product with 0.044715: 1 + tanh(u) = 2·σ(2u) spares the tanh and its cancellation. */
const TANH_A: f32 = 1.5957691216;
const TANH_B: f32 = 0.0713548162726;

// @ts-ignore: decorator
@inline
function tanhGate(x: v128, x2: v128, c: usize): v128 {
  return sigmoid4(f32x4.mul(x, madd(x2, splat(TANH_B), splat(TANH_A))), c);
}

/**
 * Φ(x), the normal distribution function, as erfc(-x/√2) / 2, with erfc of a positive argument by the Chebyshev
 * fit of Numerical Recipes (3rd ed., §6.2.2: relative error under 1.2e-7 everywhere), so that the tail keeps its
 * digits: relative error under 6e-7 from -1 up, 3e-6 to -5, 2.1e-5 to the last subnormal (`test/math.test.ts`).
 */
// @ts-ignore: decorator
@inline
function normal4(x: v128, c: usize): v128 {
  const z = f32x4.mul(f32x4.abs(x), splat(0.70710678));
  const t = f32x4.div(splat(1), madd(z, splat(0.5), splat(1)));
  let p = madd(t, splat(0.17087277), splat(-0.82215223));
  p = madd(p, t, splat(1.48851587));
  p = madd(p, t, splat(-1.13520398));
  p = madd(p, t, splat(0.27886807));
  p = madd(p, t, splat(-0.18628806));
  p = madd(p, t, splat(0.09678418));
  p = madd(p, t, splat(0.37409196));
  p = madd(p, t, splat(1.00002368));
  p = madd(p, t, splat(-1.26551223));
  const tail = f32x4.mul(f32x4.mul(t, splat(0.5)), exp4(f32x4.sub(p, f32x4.mul(z, z)), c));
  return v128.bitselect(tail, f32x4.sub(splat(1), tail), f32x4.lt(x, splat(0)));
}

/** x · gate(x), an infinite x included: 0 · -Infinity is 0 here, not NaN. */
// @ts-ignore: decorator
@inline
function gated(x: v128, gate: v128): v128 {
  return v128.bitselect(splat(0), f32x4.mul(x, gate), f32x4.eq(gate, splat(0)));
}

// @ts-ignore: decorator
@inline
function gelu4(x: v128, erf: u32, c: usize): v128 {
  return gated(x, erf ? normal4(x, c) : tanhGate(x, f32x4.mul(x, x), c));
}

/** The slope of GELU: g + x · g'. */
// @ts-ignore: decorator
@inline
function geluSlope4(x: v128, erf: u32, c: usize): v128 {
  const x2 = f32x4.mul(x, x);
  if (erf) {
    const density = f32x4.mul(splat(0.39894228), exp4(f32x4.mul(x2, splat(-0.5)), c));
    return f32x4.add(gated(x, density), normal4(x, c));
  }
  const g = tanhGate(x, x2, c);
  const slope = madd(x2, splat(3 * TANH_B), splat(TANH_A));
  const bell = f32x4.mul(g, f32x4.sub(splat(1), g));
  return f32x4.add(gated(f32x4.mul(x, slope), bell), g);
}

/** out = gelu(x): the tanh form, or with `erf` the exact one. Range: elements. */
export function gelu(out: usize, x: usize, n: u32, erf: u32, begin: u32, end: u32): void {
  const c = expConstants();
  let i = <usize>begin << 2;
  const stop = <usize>end << 2;
  for (; i + 16 <= stop; i += 16) v128.store(out + i, gelu4(v128.load(x + i), erf, c));
  const left = <i32>(stop - i >> 2);
  if (left > 0) storeTail(out + i, gelu4(loadTail(x + i, left, 0), erf, c), left);
}

/** x = dout · gelu'(x): the gradient in its own place. Range: elements. */
export function gelu_backward(x: usize, dout: usize, n: u32, erf: u32, begin: u32, end: u32): void {
  const c = expConstants();
  let i = <usize>begin << 2;
  const stop = <usize>end << 2;
  for (; i + 16 <= stop; i += 16) {
    v128.store(x + i, f32x4.mul(v128.load(dout + i), geluSlope4(v128.load(x + i), erf, c)));
  }
  const left = <i32>(stop - i >> 2);
  if (left > 0) {
    const d = loadTail(dout + i, left, 0);
    storeTail(x + i, f32x4.mul(d, geluSlope4(loadTail(x + i, left, 0), erf, c)), left);
  }
}
