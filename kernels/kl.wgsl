// loss[r] = KL(p ‖ q) of p = softmax(logits), q = softmax(ref_logits), in nats, or with `reverse` KL(q ‖ p);
// with weights then logits = weights[r] · p · (ln p - ln q - KL), or weights[r] · (p - q), the gradient in their own
// place. A workgroup a row.

struct Params { rows: u32, cols: u32, reverse: u32, has_weights: u32 }

@group(0) @binding(0) var<storage, read_write> loss: array<f32>;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> ref_logits: array<f32>;
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
  var x_max = LOWEST;
  var y_max = LOWEST;
  for (var c = lane; c < params.cols; c += LANES) {
    x_max = max(x_max, logits[at + c]);
    y_max = max(y_max, ref_logits[at + c]);
  }
  x_max = row_max(lane, x_max);
  y_max = row_max(lane, y_max);
  var x_sum = 0.0;
  var y_sum = 0.0;
  for (var c = lane; c < params.cols; c += LANES) {
    x_sum += exp(logits[at + c] - x_max);
    y_sum += exp(ref_logits[at + c] - y_max);
  }
  // Kept apart from the maxima, which may be so large that a sum of both would lose it.
  let x_log = log(row_sum(lane, x_sum));
  let y_log = log(row_sum(lane, y_sum));

  let backwards = params.reverse != 0u;
  var sum = 0.0;
  for (var c = lane; c < params.cols; c += LANES) {
    let log_p = logits[at + c] - x_max - x_log;
    let log_q = ref_logits[at + c] - y_max - y_log;
    sum += exp(select(log_p, log_q, backwards)) * (log_p - log_q);
  }
  sum = row_sum(lane, sum);
  let divergence = select(sum, -sum, backwards);
  if (lane == 0u) { loss[row] = divergence; }
  if (params.has_weights == 0u) { return; }
  let weight = weights[row];
  for (var c = lane; c < params.cols; c += LANES) {
    let log_p = logits[at + c] - x_max - x_log;
    let log_q = ref_logits[at + c] - y_max - y_log;
    let p = exp(log_p);
    let slope = select(p * (log_p - log_q - divergence), p - exp(log_q), backwards);
    // Not the product where the weight is 0: logits that are no numbers must not spread.
    logits[at + c] = select(weight * slope, 0.0, weight == 0.0);
  }
}
