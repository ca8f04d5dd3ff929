// x = dout · gelu'(x), where gelu' = Φ(x) + x · Φ'(x): the gradient in its own place.

struct Params { n: u32, erf: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> dout: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

// 2·√(2/π) and its product with 0.044715: 1 + tanh(u) = 2·σ(2u) spares the tanh (NaN from 89 on SwiftShader)
// and its cancellation.
const TANH_A = 1.5957691216;
const TANH_B = 0.0713548162726;

// 1 / (1 + e^-x). Far below 0 it is exactly 0: there e^-x would overflow, and a driver may make anything of
// it.
fn sigmoid(x: f32) -> f32 {
  return select(1.0 / (1.0 + exp(-max(x, -87.0))), 0.0, x < -87.0);
}

// Φ(x), the normal distribution function, as erfc(-x/√2) / 2, with erfc of a positive argument by the
// Chebyshev fit of Numerical Recipes (3rd ed., §6.2.2: relative error under 1.2e-7), so that the tail stays
// exact. The exponent is never positive; past 15 the tail is 0 in f32.
fn normal(x: f32) -> f32 {
  let z = min(abs(x), 15.0) * 0.70710678;
  let t = 1.0 / (1.0 + 0.5 * z);
  var p = t * 0.17087277 - 0.82215223;
  p = p * t + 1.48851587;
  p = p * t - 1.13520398;
  p = p * t + 0.27886807;
  p = p * t - 0.18628806;
  p = p * t + 0.09678418;
  p = p * t + 0.37409196;
  p = p * t + 1.00002368;
  p = p * t - 1.26551223;
  let tail = 0.5 * t * exp(p - z * z);
  return select(1.0 - tail, tail, x < 0.0);
}

fn slope(x: f32) -> f32 {
  // Past 15 the slope is 0 or 1 in both forms; said outright, since 0 · Infinity is NaN.
  if (abs(x) > 15.0) { return select(0.0, 1.0, x > 0.0); }
  if (params.erf != 0u) { return normal(x) + x * 0.39894228 * exp(-0.5 * x * x); }
  let g = sigmoid(x * (TANH_A + TANH_B * x * x));
  return g + x * (TANH_A + 3.0 * TANH_B * x * x) * g * (1.0 - g);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i >= params.n) { return; }
  x[i] = dout[i] * slope(x[i]);
}
