// Vector helpers shared by all kernels. Every f32x4 function here propagates NaN.

/** Where this instance may scratch; the host sets it, each thread has its own. See `SCRATCH_BYTES`. */
export let scratch: usize = 0;

/** What the kernels need at `scratch`: the packed panels of a matmul, or the tiles of attention. */
export const SCRATCH_BYTES: i32 = 1 << 20;

/** a·b + c, in one rounding where the build has relaxed SIMD. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}

// @ts-ignore: decorator
@inline
export function splat(x: f32): v128 {
  return f32x4.splat(x);
}

/** Lane 0 + 1 + 2 + 3, always in the order (0 + 2) + (1 + 3). */
// @ts-ignore: decorator
@inline
export function sum4(v: v128): f32 {
  const pairs = f32x4.add(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1);
}

/**
 * The larger of each lane, `a` where `b` is NaN: one instruction, where f32x4.max, which keeps NaN, is several. A
 * softmax may lose a NaN here, since its exponentials bring it back.
 */
// @ts-ignore: decorator
@inline
export function larger4(a: v128, b: v128): v128 {
  return f32x4.pmax(a, b);
}

/** The largest lane. */
// @ts-ignore: decorator
@inline
export function max4(v: v128): f32 {
  const pairs = larger4(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1));
  const last = larger4(pairs, v128.shuffle<f32>(pairs, pairs, 1, 0, 3, 2));
  return f32x4.extract_lane(last, 0);
}

/** The first `count` (1 to 3) floats at `p`, `rest` in the other lanes. */
// @ts-ignore: decorator
@inline
export function loadTail(p: usize, count: i32, rest: f32): v128 {
  let v = f32x4.replace_lane(splat(rest), 0, load<f32>(p));
  if (count > 1) v = f32x4.replace_lane(v, 1, load<f32>(p, 4));
  if (count > 2) v = f32x4.replace_lane(v, 2, load<f32>(p, 8));
  return v;
}

/** Stores the first `count` (1 to 3) lanes. */
// @ts-ignore: decorator
@inline
export function storeTail(p: usize, v: v128, count: i32): void {
  store<f32>(p, f32x4.extract_lane(v, 0));
  if (count > 1) store<f32>(p, f32x4.extract_lane(v, 1), 4);
  if (count > 2) store<f32>(p, f32x4.extract_lane(v, 2), 8);
}

/**
 * 1.5 · 2^23: added to a small number it leaves the nearest integer in the low bits, one addition where
 * f32x4.nearest and the saturating conversion take several instructions each, which V8's revectorisation can't pair.
 */
const ROUNDER: f32 = 12582912;

/** x - n · ln 2, with ln 2 in two parts, the first short enough for the product to be exact. */
// @ts-ignore: decorator
@inline
function lessLn2(x: v128, n: v128): v128 {
  return madd(n, splat(2.12194440e-4), madd(n, splat(-0.693359375), x));
}

/**
 * e^r for |r| <= ln 2 / 2: 1 + r + r² · (…) of degree 6, the rest fitted for the least relative error, 3.1e-9 (Remez
 * by iterated weighted least squares).
 */
// @ts-ignore: decorator
@inline
function expPolynomial(r: v128): v128 {
  let p = madd(r, splat(0.001381453921022042), splat(0.008368745201158564));
  p = madd(p, r, splat(0.04166839080405916));
  p = madd(p, r, splat(0.1666652039805));
  p = madd(p, r, splat(0.49999993432025414));
  p = madd(p, r, splat(1));
  return madd(p, r, splat(1));
}

/**
 * e^x, relative error under 2^-23 (measured over all of f32, see `test/math.test.ts`), exact 0 and Infinity at the
 * ends, subnormal results to one last place. x = n·ln 2 + r with |r| <= ln 2 / 2; n goes into
 * the exponent in two steps so that subnormal results and those next to the overflow come out right.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  // pmin and pmax map to one instruction each and give their first operand where it is NaN.
  const clamped = f32x4.pmax(f32x4.pmin(x, splat(89)), splat(-104));
  const rounded = madd(clamped, splat(1.44269504), splat(ROUNDER));
  const p = expPolynomial(lessLn2(clamped, f32x4.sub(rounded, splat(ROUNDER))));
  const exponent = i32x4.sub(rounded, splat(ROUNDER));
  const half = i32x4.shr_s(exponent, 1);
  const bias = i32x4.splat(127);
  const scale1 = i32x4.shl(i32x4.add(half, bias), 23);
  const scale2 = i32x4.shl(i32x4.add(i32x4.sub(exponent, half), bias), 23);
  return f32x4.mul(f32x4.mul(p, scale1), scale2);
}

/**
 * e^x for the terms of a softmax, x <= 0: exact 0 below -46 (1e-20 of the largest term, which no sum of f32 can
 * see). Smaller values would turn subnormal, they or their product with a gradient, and processors take many cycles
 * over subnormals: attention's backward took 1.7 times as long once scores were spread wide (T 350, 8 heads of 8,
 * measured). With no overflow and no subnormal to care for, one scaling does.
 */
// @ts-ignore: decorator
@inline
export function expTerm4(x: v128): v128 {
  const rounded = madd(x, splat(1.44269504), splat(ROUNDER));
  const p = expPolynomial(lessLn2(x, f32x4.sub(rounded, splat(ROUNDER))));
  const scale = i32x4.add(i32x4.shl(rounded, 23), i32x4.splat(127 << 23));
  return v128.andnot(f32x4.mul(p, scale), f32x4.lt(x, splat(-46)));
}

/** e^x of one number. */
// @ts-ignore: decorator
@inline
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(splat(x)), 0);
}

/** 1 / (1 + e^-x), relative error under 2^-22; 0 below -88.7, where e^-x overflows (the result is subnormal). */
// @ts-ignore: decorator
@inline
export function sigmoid4(x: v128): v128 {
  return f32x4.div(splat(1), f32x4.add(splat(1), exp4(f32x4.neg(x))));
}

/**
 * ln x for normal x > 0, relative error under 2^-22 (measured likewise): x = 2^e·m with m in [√½, √2), and
 * ln m = 2·artanh(s), s = (m - 1) / (m + 1), |s| < 0.172, by its odd series up to s^9.
 */
export function log1(x: f32): f32 {
  if (!(x > 0) || x == Infinity) return x == 0 ? -Infinity : x > 0 ? x : NaN;
  const bits = reinterpret<i32>(x);
  let e = (bits >> 23) - 127;
  let m = reinterpret<f32>((bits & 0x7fffff) | 0x3f800000);
  if (m > 1.41421356) {
    m *= 0.5;
    e++;
  }
  const s: f32 = (m - 1) / (m + 1);
  const q = s * s;
  const series: f32 = 2 * s * (1 + q * (0.333333333 + q * (0.2 + q * (0.142857143 + q * 0.111111111))));
  return <f32>e * 0.693147181 + series;
}
