// out = x / rms(x) · weight, rstd (rows) = 1 / √(mean x² + eps): a workgroup a row.

struct Params { rows: u32, cols: u32, eps: f32 }

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> weight: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const LANES = 128u;
var<workgroup> partial: array<f32, LANES>;
var<workgroup> joined: array<f32, 16>;

// The sum over the workgroup, always in the same order; two steps need fewer barriers than a binary tree.
fn row_sum(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  if (lane < 16u) {
    var result = partial[lane];
    for (var i = lane + 16u; i < LANES; i += 16u) { result += partial[i]; }
    joined[lane] = result;
  }
  workgroupBarrier();
  var result = joined[0];
  for (var i = 1u; i < 16u; i++) { result += joined[i]; }
  return result;
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let at = row * params.cols;
  var squares = 0.0;
  for (var c = lane; c < params.cols; c += LANES) {
    squares += x[at + c] * x[at + c];
  }
  let r = 1.0 / sqrt(row_sum(lane, squares) / f32(params.cols) + params.eps);
  if (lane == 0u) { rstd[row] = r; }
  for (var c = lane; c < params.cols; c += LANES) {
    out[at + c] = x[at + c] * r * weight[c];
  }
}
