// dweight[c] += Σ dout · x̂ and dbias[c] += Σ dout over the rows, x̂ = (x - mean) · rstd.

struct Params { rows: u32, cols: u32 }

@group(0) @binding(0) var<storage, read_write> dweight: array<f32>;
@group(0) @binding(1) var<storage, read_write> dbias: array<f32>;
@group(0) @binding(2) var<storage, read_write> dout: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

// Threads that share a column: each adds up every fourth row, and the first adds up the four.
const PARTS = 4u;
var<workgroup> sums: array<vec2f, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let col = (group.x + group.y * groups.x) * 64u + lane % 64u;
  let part = lane / 64u;
  // (dweight, dbias)
  var sum = vec2f(0.0);
  if (col < params.cols) {
    for (var row = part; row < params.rows; row += PARTS) {
      let i = row * params.cols + col;
      sum += dout[i] * vec2f((x[i] - mean[row]) * rstd[row], 1.0);
    }
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (part == 0u && col < params.cols) {
    let total = (sums[lane] + sums[lane + 64u]) + (sums[lane + 128u] + sums[lane + 192u]);
    dweight[col] += total.x;
    dbias[col] += total.y;
  }
}
