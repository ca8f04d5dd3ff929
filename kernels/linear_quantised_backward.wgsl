// dx(rows, k) += dout(rows, n) · W(n, k), rows of dout `out_m` elements apart; W is stored as `weight_type`. Tiles as
// in matmul.wgsl: 64 × 64 with 4 × 4 a thread.

struct Params { rows: u32, k: u32, n: u32, out_m: u32, weight_type: u32 }

@group(0) @binding(0) var<storage, read_write> dx: array<f32>;
@group(0) @binding(1) var<storage, read_write> dout: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

const TILE = 64u;
const STEP = 16u;
// Vectors from one step to the next: one more than there are, so that neighbours lie in different banks.
const PITCH = TILE / 4u + 1u;

var<workgroup> dout_tile: array<vec4f, STEP * PITCH>;
var<workgroup> w_tile: array<vec4f, STEP * PITCH>;

// One element of a matrix in a storage format, rows of `cols`; the types are ggml's numbers, blocks hold 32 elements
// along a row. The same in every kernel that reads stored weights.
const F16 = 1u;
const Q4_0 = 2u;
const Q8_0 = 8u;

fn byte_at(at: u32) -> u32 { return (weight[at / 4u] >> (8u * (at % 4u))) & 0xffu; }

// Blocks have an even number of bytes, so that halves never straddle a word.
fn half_at(at: u32) -> u32 { return (weight[at / 4u] >> (8u * (at % 4u))) & 0xffffu; }

// Exact; by hand, since a device may flush the subnormals of unpack2x16float.
fn from_f16(half: u32) -> f32 {
  let magnitude = half & 0x7fffu;
  let normal = bitcast<f32>((magnitude << 13u) + 0x38000000u);
  let value = select(normal, f32(magnitude) * 0x1p-24, magnitude < 0x400u);
  return select(value, -value, half >= 0x8000u);
}

fn weight_at(row: u32, col: u32, cols: u32, weight_type: u32) -> f32 {
  if (weight_type == Q8_0) {
    let start = (row * (cols / 32u) + col / 32u) * 34u;
    let q = extractBits(bitcast<i32>(byte_at(start + 2u + col % 32u)), 0u, 8u);
    return from_f16(half_at(start)) * f32(q);
  }
  if (weight_type == Q4_0) {
    let start = (row * (cols / 32u) + col / 32u) * 18u;
    let byte = byte_at(start + 2u + col % 16u);
    let q = select(byte & 15u, byte >> 4u, col % 32u >= 16u);
    return from_f16(half_at(start)) * (f32(q) - 8.0);
  }
  let half = half_at((row * cols + col) * 2u);
  if (weight_type == F16) { return from_f16(half); }
  return bitcast<f32>(half << 16u);
}

// Zero outside the matrix, where the load itself is kept inside the buffer by WebGPU.
fn load_dout(row: u32, n: u32) -> f32 {
  return select(0.0, dout[row * params.out_m + n], row < params.rows && n < params.n);
}

fn load_w(n: u32, col: u32) -> f32 {
  if (n >= params.n || col >= params.k) { return 0.0; }
  return weight_at(n, col, params.k, params.weight_type);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first_row = group.y * TILE;
  let first_col = group.x * TILE;
  // The step of n and the vector of four that a thread fetches: neighbours go along a row of dout, and of W.
  let dout_at = vec2u(lane % STEP, lane / STEP);
  let w_at = dout_at.yx;
  let dout_row = first_row + dout_at.y * 4u;
  let w_col = first_col + w_at.y * 4u;
  var row0 = vec4f(0.0);
  var row1 = vec4f(0.0);
  var row2 = vec4f(0.0);
  var row3 = vec4f(0.0);
  for (var start = 0u; start < params.n; start += STEP) {
    let nd = start + dout_at.x;
    dout_tile[dout_at.x * PITCH + dout_at.y] = vec4f(
      load_dout(dout_row, nd),
      load_dout(dout_row + 1u, nd),
      load_dout(dout_row + 2u, nd),
      load_dout(dout_row + 3u, nd),
    );
    let nw = start + w_at.x;
    w_tile[w_at.x * PITCH + w_at.y] =
      vec4f(load_w(nw, w_col), load_w(nw, w_col + 1u), load_w(nw, w_col + 2u), load_w(nw, w_col + 3u));
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let dv = dout_tile[i * PITCH + lane / 16u];
      let wv = w_tile[i * PITCH + lane % 16u];
      row0 += dv.x * wv;
      row1 += dv.y * wv;
      row2 += dv.z * wv;
      row3 += dv.w * wv;
    }
    workgroupBarrier();
  }
  let sums = array(row0, row1, row2, row3);
  for (var i = 0u; i < 16u; i++) {
    let row = first_row + (lane / 16u) * 4u + i / 4u;
    let col = first_col + (lane % 16u) * 4u + i % 4u;
    if (row < params.rows && col < params.k) { dx[row * params.k + col] += sums[i / 4u][i % 4u]; }
  }
}
