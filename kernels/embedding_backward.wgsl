// dtable[ids[t] - first] += dout[t], in the order of t. A thread owns a column of the table rows whose number
// leaves the remainder group.y by groups.y, so that no two threads add to one place.

struct Params { n: u32, dim: u32, first: u32, count: u32 }

@group(0) @binding(0) var<storage, read_write> dtable: array<f32>;
@group(0) @binding(1) var<storage, read_write> dout: array<f32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let col = group.x * 64u + lane;
  if (col >= params.dim) { return; }
  for (var t = 0u; t < params.n; t++) {
    // An id under `first` wraps round and is out of range too.
    let row = ids[t] - params.first;
    if (row < params.count && row % groups.y == group.y) {
      dtable[row * params.dim + col] += dout[t * params.dim + col];
    }
  }
}
