// loss[r] = ln Σ e^logits - logits[target], in nats; with weights then logits = weights[r] · (softmax - one-hot), the
// gradient in their own place. A workgroup a row.

struct Params { rows: u32, cols: u32, has_weights: u32 }

@group(0) @binding(0) var<storage, read_write> loss: array<f32>;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

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
    m = max(m, logits[at + c]);
  }
  m = row_max(lane, m);
  var sum = 0.0;
  for (var c = lane; c < params.cols; c += LANES) {
    sum += exp(logits[at + c] - m);
  }
  sum = row_sum(lane, sum);
  let target_col = targets[row];
  if (lane == 0u) { loss[row] = log(sum) - (logits[at + target_col] - m); }
  if (params.has_weights == 0u) { return; }
  // The target's logit is read before its lane writes over it.
  storageBarrier();
  let weight = weights[row];
  for (var c = lane; c < params.cols; c += LANES) {
    let p = exp(logits[at + c] - m) / sum;
    let slope = weight * (p - select(0.0, 1.0, c == target_col));
    // Not the product where the weight is 0: logits that are no numbers must not spread.
    logits[at + c] = select(slope, 0.0, weight == 0.0);
  }
}
