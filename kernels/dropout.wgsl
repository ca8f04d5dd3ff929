// out = x · scale, or x · 0 where the element is dropped: a function of the seed and the element's index.

struct Params { n: u32, seed: u32, threshold: u32, scale: f32 }

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

// A bijection of 32 bits that leaves no trace of its order (Wellons, hash-prospector: bias 0.11).
fn mix(value: u32) -> u32 {
  var v = (value ^ (value >> 16u)) * 0x21f0aaadu;
  v = (v ^ (v >> 15u)) * 0xd35a2d97u;
  return v ^ (v >> 15u);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i >= params.n) { return; }
  out[i] = x[i] * select(params.scale, 0.0, mix(mix(i) ^ params.seed) < params.threshold);
}
