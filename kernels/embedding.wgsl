// out[t] = table[ids[t] - first] for ids in [first, first + count); other rows of out are left as they are,
// so that a second table can fill them.

struct Params { n: u32, dim: u32, first: u32, count: u32 }

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> table: array<f32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i >= params.n * params.dim) { return; }
  // An id under `first` wraps round and is out of range too.
  let row = ids[i / params.dim] - params.first;
  if (row < params.count) { out[i] = table[row * params.dim + i % params.dim]; }
}
