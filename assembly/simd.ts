// Vector helpers shared by all kernels. Every f32x4 function here propagates NaN.

/** Where this instance may scratch; the host sets it, each thread has its own. See `SCRATCH_BYTES`. */
export let scratch: usize = 0;

/** What the kernels need at `scratch`: the packed panels of a matmul, or the tiles of attention. */
export const SCRATCH_BYTES: i32 = 1 << 20;
/** Of these, at the end: the constants of the exponentials. */
export const CONSTANT_BYTES: i32 = 64;

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
 * Writes what the exponentials compute with to the end of scratch and returns where: a kernel does so once a call. V8
 * builds a constant that it knows anew at each use, inside of loops too, in up to four instructions; loaded from
 * memory it is one (1.6 to 0.55 ns an element, and with pairing 1.5 to 0.4, measured on `expTerm4`). Its place is
 * written as a literal, which makes it part of the load.
 */
export function expConstants(): usize {
  const c = scratch + SCRATCH_BYTES - CONSTANT_BYTES;
  store<f32>(c, 1.44269504); // 1 / ln 2
  store<f32>(c, 12582912, 4); // 1.5 · 2^23: added to a small number it leaves the nearest integer in the low bits
  store<f32>(c, -0.693359375, 8); // -ln 2 in two parts, the first short enough for its products to be exact
  store<f32>(c, 2.12194440e-4, 12);
  store<f32>(c, 0.001381453921022042, 16); // e^r for |r| <= ln 2 / 2 is 1 + r + r² · (…) of degree 6, fitted for the
  store<f32>(c, 0.008368745201158564, 20); // least relative error, 3.1e-9 (iterated weighted least squares)
  store<f32>(c, 0.04166839080405916, 24);
  store<f32>(c, 0.1666652039805, 28);
  store<f32>(c, 0.49999993432025414, 32);
  store<f32>(c, 1, 36);
  store<f32>(c, -46, 40); // below it a term of a softmax is 0
  store<f32>(c, 89, 44); // e^x overflows before it
  store<f32>(c, -104, 48); // and is 0 after it
  store<i32>(c, 127, 52); // the exponent's bias
  return c;
}

/** e^r for r = x - n · ln 2, |r| <= ln 2 / 2. */
// @ts-ignore: decorator
@inline
function expRest(x: v128, n: v128, c: usize): v128 {
  const r = madd(n, v128.load_splat<f32>(c, 12), madd(n, v128.load_splat<f32>(c, 8), x));
  let p = madd(r, v128.load_splat<f32>(c, 16), v128.load_splat<f32>(c, 20));
  p = madd(p, r, v128.load_splat<f32>(c, 24));
  p = madd(p, r, v128.load_splat<f32>(c, 28));
  p = madd(p, r, v128.load_splat<f32>(c, 32));
  p = madd(p, r, v128.load_splat<f32>(c, 36));
  return madd(p, r, v128.load_splat<f32>(c, 36));
}

/**
 * e^x, relative error under 2^-23 (measured over all of f32, see `test/math.test.ts`), exact 0 and Infinity at the
 * ends, subnormal results to one last place. x = n·ln 2 + r with |r| <= ln 2 / 2; n goes into
 * the exponent in two steps so that subnormal results and those next to the overflow come out right.
 * @param c `expConstants()`
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128, c: usize): v128 {
  // pmin and pmax map to one instruction each and give their first operand where it is NaN.
  const clamped = f32x4.pmax(f32x4.pmin(x, v128.load_splat<f32>(c, 44)), v128.load_splat<f32>(c, 48));
  const rounded = madd(clamped, v128.load_splat<f32>(c), v128.load_splat<f32>(c, 4));
  const p = expRest(clamped, f32x4.sub(rounded, v128.load_splat<f32>(c, 4)), c);
  const exponent = i32x4.sub(rounded, v128.load_splat<f32>(c, 4));
  const half = i32x4.shr_s(exponent, 1);
  const scale1 = i32x4.shl(i32x4.add(half, v128.load_splat<f32>(c, 52)), 23);
  const scale2 = i32x4.shl(i32x4.add(i32x4.sub(exponent, half), v128.load_splat<f32>(c, 52)), 23);
  return f32x4.mul(f32x4.mul(p, scale1), scale2);
}

/**
 * e^x for the terms of a softmax, x <= 0: exact 0 below -46 (1e-20 of the largest term, which no sum of f32 can
 * see). Smaller values would turn subnormal, they or their product with a gradient, and processors take many cycles
 * over subnormals: attention's backward took 1.7 times as long once scores were spread wide (T 350, 8 heads of 8,
 * measured). With no overflow and no subnormal to care for, one scaling does, by adding to the bits of 1. A little
 * above 0 is as good.
 * @param c `expConstants()`
 */
// @ts-ignore: decorator
@inline
export function expTerm4(x: v128, c: usize): v128 {
  return expTermWith(
    x, v128.load_splat<f32>(c), v128.load_splat<f32>(c, 4), v128.load_splat<f32>(c, 8), v128.load_splat<f32>(c, 12),
    v128.load_splat<f32>(c, 16), v128.load_splat<f32>(c, 20), v128.load_splat<f32>(c, 24), v128.load_splat<f32>(c, 28),
    v128.load_splat<f32>(c, 32), v128.load_splat<f32>(c, 36), v128.load_splat<f32>(c, 40),
  );
}

/** The same with the constants at hand, for the innermost loops: in registers they cost nothing (0.55 to 0.5 ns an element, and
 * with pairing 0.4 to 0.28). */
// @ts-ignore: decorator
@inline
export function expTermWith(
  x: v128, log2e: v128, rounder: v128, ln2High: v128, ln2Low: v128, c6: v128, c5: v128, c4: v128, c3: v128, c2: v128,
  one: v128, least: v128,
): v128 {
  const rounded = madd(x, log2e, rounder);
  const n = f32x4.sub(rounded, rounder);
  const r = madd(n, ln2Low, madd(n, ln2High, x));
  let p = madd(r, c6, c5);
  p = madd(p, r, c4);
  p = madd(p, r, c3);
  p = madd(p, r, c2);
  p = madd(p, r, one);
  p = madd(p, r, one);
  const scale = i32x4.add(i32x4.shl(rounded, 23), one);
  return v128.andnot(f32x4.mul(p, scale), f32x4.lt(x, least));
}

/** e^x of one number. */
// @ts-ignore: decorator
@inline
export function exp1(x: f32, c: usize): f32 {
  return f32x4.extract_lane(exp4(splat(x), c), 0);
}

/** 1 / (1 + e^-x), relative error under 2^-22; 0 below -88.7, where e^-x overflows (the result is subnormal). */
// @ts-ignore: decorator
@inline
export function sigmoid4(x: v128, c: usize): v128 {
  const one = v128.load_splat<f32>(c, 36);
  return f32x4.div(one, f32x4.add(one, exp4(f32x4.neg(x), c)));
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
