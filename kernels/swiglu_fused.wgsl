// out (rows, cols) = gate · σ(gate) · up, of rows x (rows, 2 · cols) = gate, up.

struct Params { rows: u32, cols: u32 }

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

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
  if (i >= params.rows * params.cols) { return; }
  // Of row r, gate begins at 2 · r · cols and up is cols further on.
  let gate = i + i / params.cols * params.cols;
  let up = gate + params.cols;
  out[i] = x[gate] * sigmoid(x[gate]) * x[up];
}
