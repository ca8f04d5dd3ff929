// partials[i] = Σ x² over block i of 4096 elements, which a workgroup adds up in a fixed order.

struct Params { n: u32 }

@group(0) @binding(0) var<storage, read_write> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

const BLOCK = 4096u;
const LANES = 128u;
var<workgroup> partial: array<f32, LANES>;
var<workgroup> joined: array<f32, 16>;

// The sum over the workgroup, always in the same order; two steps need fewer barriers than a binary tree.
fn block_sum(lane: u32, value: f32) -> f32 {
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
  let block = group.x + group.y * groups.x;
  if (block * BLOCK >= params.n) { return; }
  let end = min(params.n, (block + 1u) * BLOCK);
  var squares = 0.0;
  for (var i = block * BLOCK + lane; i < end; i += LANES) { squares += x[i] * x[i]; }
  let total = block_sum(lane, squares);
  if (lane == 0u) { partials[block] = total; }
}
