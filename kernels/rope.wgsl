// Turns the first rotary_dim numbers of the heads of x (batch, seq, heads, head_dim) in place by their positions, those
// of the first rows being `position`, or positions[b] where there are such (batch); with `inverse` it turns back. cos
// and sin are tables (positions, rotary_dim / 2). A thread turns one pair of numbers: (i, i + half), or (2i, 2i + 1) if
// interleaved.

struct Params {
  batch: u32,
  seq: u32,
  heads: u32,
  head_dim: u32,
  rotary_dim: u32,
  position: u32,
  interleaved: u32,
  inverse: u32,
  has_positions: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> cos: array<f32>;
@group(0) @binding(2) var<storage, read_write> sin: array<f32>;
@group(0) @binding(3) var<storage, read_write> positions: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  let half = params.rotary_dim / 2u;
  if (i >= params.batch * params.seq * params.heads * half) { return; }
  let pair = i % half;
  let row = i / half / params.heads;
  let start = i / half * params.head_dim;
  var position = params.position;
  if (params.has_positions != 0u) { position = positions[row / params.seq]; }
  let angle = (position + row % params.seq) * half + pair;
  let first = start + select(pair, 2u * pair, params.interleaved != 0u);
  let second = first + select(half, 1u, params.interleaved != 0u);
  let c = cos[angle];
  let s = select(sin[angle], -sin[angle], params.inverse != 0u);
  let a = x[first];
  let b = x[second];
  x[first] = a * c - b * s;
  x[second] = b * c + a * s;
}
