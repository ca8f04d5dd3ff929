// out = softmax of each row of x (rows, cols): a workgroup a row.

struct Params { rows: u32, cols: u32 }

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

// No number is less; WGSL cannot write -Infinity.
const LOWEST = -3.4028234e38;
const LANES = 128u;
var<workgroup> partial: array<f32, LANES>;
var<workgroup> joined: array<f32, 16>;

// The largest of the workgroup.
fn row_max(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  if (lane < 16u) {
    var result = partial[lane];
    for (var i = lane + 16u; i < LANES; i += 16u) { result = max(result, partial[i]); }
    joined[lane] = result;
  }
  workgroupBarrier();
  var result = joined[0];
  for (var i = 1u; i < 16u; i++) { result = max(result, joined[i]); }
  return result;
}

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
  var m = LOWEST;
  for (var c = lane; c < params.cols; c += LANES) {
    m = max(m, x[at + c]);
  }
  m = row_max(lane, m);
  var sum = 0.0;
  for (var c = lane; c < params.cols; c += LANES) {
    let e = exp(x[at + c] - m);
    out[at + c] = e;
    sum += e;
  }
  let scale = 1.0 / row_sum(lane, sum);
  for (var c = lane; c < params.cols; c += LANES) {
    out[at + c] *= scale;
  }
}
