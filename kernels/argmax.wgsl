// out[r] = index of the largest of row r, the first of equals; NaN is never the largest. A workgroup a row.

struct Params { rows: u32, cols: u32 }

@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

const LANES = 128u;
// (key, column); a lane that saw no column has the column `cols`.
var<workgroup> bests: array<vec2u, LANES>;

// An integer of the same order as the number, NaN with -Infinity at the bottom and -0 with 0: integers
// compare alike on every driver, NaN does not.
fn order(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 0x007fffffu; }
  if (magnitude == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, bits > 0x7fffffffu);
}

fn better(a: vec2u, b: vec2u) -> vec2u {
  return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
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
  var best = vec2u(0u, params.cols);
  for (var c = lane; c < params.cols; c += LANES) {
    let key = order(x[at + c]);
    if (best.y == params.cols || key > best.x) { best = vec2u(key, c); }
  }
  bests[lane] = best;
  workgroupBarrier();
  if (lane < 16u) {
    for (var i = lane + 16u; i < LANES; i += 16u) { best = better(best, bests[i]); }
    bests[lane] = best;
  }
  workgroupBarrier();
  if (lane == 0u) {
    for (var i = 1u; i < 16u; i++) { best = better(best, bests[i]); }
    out[row] = best.y;
  }
}
