// out = softmax of each row of x (rows, cols): a workgroup a row.

struct Params { rows: u32, cols: u32 }

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

// No number is less; WGSL cannot write -Infinity.
const LOWEST = -3.4028234e38;
const LANES = 256u;
var<workgroup> partial: array<f32, LANES>;

// The largest of the workgroup.
fn row_max(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (lane < step) { partial[lane] = max(partial[lane], partial[lane + step]); }
  }
  return workgroupUniformLoad(&partial[0]);
}

// The sum over the workgroup, always in the same order.
fn row_sum(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (lane < step) { partial[lane] += partial[lane + step]; }
  }
  return workgroupUniformLoad(&partial[0]);
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
