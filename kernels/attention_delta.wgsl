// stats[…, 1] = Σ dout · out over the head: what the softmax's backward subtracts. dout, out: (batch, q_len,
// heads, head_dim), stats: (batch, heads, q_len, 2). A thread a query of a head.

struct Params { batch: u32, q_len: u32, heads: u32, head_dim: u32 }

@group(0) @binding(0) var<storage, read_write> stats: array<f32>;
@group(0) @binding(1) var<storage, read_write> dout: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = (group.x + group.y * groups.x) * 64u + lane;
  if (index >= params.batch * params.q_len * params.heads) { return; }
  let at = index * params.head_dim;
  var sum = 0.0;
  for (var d = at; d < at + params.head_dim; d++) { sum += dout[d] * out[d]; }
  let h = index % params.heads;
  let t = index / params.heads % params.q_len;
  let b = index / params.heads / params.q_len;
  stats[((b * params.heads + h) * params.q_len + t) * 2u + 1u] = sum;
}
