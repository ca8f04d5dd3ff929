// dweight[c] += Σ dout · x · rstd over the rows.

struct Params { rows: u32, cols: u32 }

@group(0) @binding(0) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(1) var<storage, read_write> dout: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

// Threads that share a column: each adds up every fourth row, and the first adds up the four.
const PARTS = 4u;
var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let col = (group.x + group.y * groups.x) * 64u + lane % 64u;
  let part = lane / 64u;
  var sum = 0.0;
  if (col < params.cols) {
    for (var row = part; row < params.rows; row += PARTS) {
      let i = row * params.cols + col;
      sum += dout[i] * x[i] * rstd[row];
    }
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (part == 0u && col < params.cols) {
    dweight[col] += (sums[lane] + sums[lane + 64u]) + (sums[lane + 128u] + sums[lane + 192u]);
  }
}
