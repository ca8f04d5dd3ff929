// dx += dout turned back: see rope.wgsl.

struct Params {
  batch: u32,
  seq: u32,
  heads: u32,
  head_dim: u32,
  position: u32,
  interleaved: u32,
}

@group(0) @binding(0) var<storage, read_write> dx: array<f32>;
@group(0) @binding(1) var<storage, read_write> dout: array<f32>;
@group(0) @binding(2) var<storage, read_write> cos: array<f32>;
@group(0) @binding(3) var<storage, read_write> sin: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  let half = params.head_dim / 2u;
  if (i >= params.batch * params.seq * params.heads * half) { return; }
  let pair = i % half;
  let row = i / half / params.heads;
  let start = i / half * params.head_dim;
  let angle = (params.position + row % params.seq) * half + pair;
  let first = start + select(pair, 2u * pair, params.interleaved != 0u);
  let second = first + select(half, 1u, params.interleaved != 0u);
  dx[first] += dout[first] * cos[angle] + dout[second] * sin[angle];
  dx[second] += dout[second] * cos[angle] - dout[first] * sin[angle];
}
