// gate = dout · up · silu'(gate), up = dout · silu(gate): the gradients in their own place.

struct Params { n: u32 }

@group(0) @binding(0) var<storage, read_write> gate: array<f32>;
@group(0) @binding(1) var<storage, read_write> up: array<f32>;
@group(0) @binding(2) var<storage, read_write> dout: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

// 1 / (1 + e^-x). Far below 0 it is exactly 0: there e^-x would overflow, and a driver may make anything of
// it.
fn sigmoid(x: f32) -> f32 {
  return select(1.0 / (1.0 + exp(-max(x, -87.0))), 0.0, x < -87.0);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i >= params.n) { return; }
  let g = gate[i];
  let s = sigmoid(g);
  gate[i] = dout[i] * up[i] * (s + g * s * (1.0 - s));
  up[i] = dout[i] * g * s;
}
