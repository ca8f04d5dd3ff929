// One step of AdamW (decoupled decay, Loshchilov and Hutter 2019, as PyTorch computes it): m and v are the
// moments, rest1 and rest2 are 1 - beta, which f32 would round by 1e-5, correction1 and correction2 are
// 1 - beta^step, grad_scale multiplies the gradient first (clipping).

struct Params {
  n: u32,
  lr: f32,
  beta1: f32,
  rest1: f32,
  beta2: f32,
  rest2: f32,
  eps: f32,
  weight_decay: f32,
  correction1: f32,
  correction2: f32,
  grad_scale: f32,
}

@group(0) @binding(0) var<storage, read_write> param: array<f32>;
@group(0) @binding(1) var<storage, read_write> m: array<f32>;
@group(0) @binding(2) var<storage, read_write> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> grad: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i >= params.n) { return; }
  let g = grad[i] * params.grad_scale;
  let m1 = params.beta1 * m[i] + params.rest1 * g;
  let v1 = params.beta2 * v[i] + params.rest2 * g * g;
  let denominator = sqrt(v1) / sqrt(params.correction2) + params.eps;
  let kept = param[i] * (1.0 - params.lr * params.weight_decay);
  m[i] = m1;
  v[i] = v1;
  param[i] = kept - params.lr / params.correction1 * m1 / denominator;
}
