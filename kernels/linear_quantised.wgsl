// out(rows, n) = x(rows, k) · W(n, k)ᵀ + bias(n), rows of out `out_m` elements apart; W is stored as `weight_type`.
// x is taken as it is, in f32. As matmul.wgsl: tiles of 64 × 64 with 4 × 4 a thread; up to THIN rows by dot products,
// 16 threads a column.

struct Params { rows: u32, k: u32, n: u32, out_m: u32, weight_type: u32, has_bias: u32 }

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight: array<u32>;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const TILE = 64u;
const STEP = 16u;
// Vectors from one step to the next: one more than there are, so that neighbours lie in different banks.
const PITCH = TILE / 4u + 1u;
// As in src/ops/linear-quantised.ts, whose grid is different there.
const THIN = 4u;
const THIN_COLS = 16u;

var<workgroup> x_tile: array<vec4f, STEP * PITCH>;
var<workgroup> w_tile: array<vec4f, STEP * PITCH>;
var<workgroup> partial: array<vec4f, 256>;

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
fn load_x(row: u32, k: u32) -> f32 {
  return select(0.0, x[row * params.k + k], row < params.rows && k < params.k);
}

fn load_w(k: u32, col: u32) -> f32 {
  if (col >= params.n || k >= params.k) { return 0.0; }
  return weight_at(col, k, params.k, params.weight_type);
}

fn store(row: u32, col: u32, sum: f32) {
  if (row >= params.rows || col >= params.n) { return; }
  var value = sum;
  if (params.has_bias != 0u) { value += bias[col]; }
  out[row * params.out_m + col] = value;
}

fn tiled(group: vec3u, lane: u32) {
  let first_row = group.y * TILE;
  let first_col = group.x * TILE;
  // The step of k and the vector of four that a thread fetches: neighbours go along a row of x and of W.
  let at = vec2u(lane % STEP, lane / STEP);
  let x_row = first_row + at.y * 4u;
  let w_col = first_col + at.y * 4u;
  var row0 = vec4f(0.0);
  var row1 = vec4f(0.0);
  var row2 = vec4f(0.0);
  var row3 = vec4f(0.0);
  for (var start = 0u; start < params.k; start += STEP) {
    let k = start + at.x;
    x_tile[at.x * PITCH + at.y] =
      vec4f(load_x(x_row, k), load_x(x_row + 1u, k), load_x(x_row + 2u, k), load_x(x_row + 3u, k));
    w_tile[at.x * PITCH + at.y] =
      vec4f(load_w(k, w_col), load_w(k, w_col + 1u), load_w(k, w_col + 2u), load_w(k, w_col + 3u));
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let xv = x_tile[i * PITCH + lane / 16u];
      let wv = w_tile[i * PITCH + lane % 16u];
      row0 += xv.x * wv;
      row1 += xv.y * wv;
      row2 += xv.z * wv;
      row3 += xv.w * wv;
    }
    workgroupBarrier();
  }
  let row = first_row + (lane / 16u) * 4u;
  let col = first_col + (lane % 16u) * 4u;
  let sums = array(row0, row1, row2, row3);
  for (var i = 0u; i < 16u; i++) { store(row + i / 4u, col + i % 4u, sums[i / 4u][i % 4u]); }
}

fn thin(group: vec3u, lane: u32) {
  let col = group.x * THIN_COLS + lane / 16u;
  var sum = vec4f(0.0);
  for (var k = lane % 16u; k < params.k; k += 16u) {
    sum += vec4f(load_x(0u, k), load_x(1u, k), load_x(2u, k), load_x(3u, k)) * load_w(k, col);
  }
  partial[lane] = sum;
  workgroupBarrier();
  // The first of a column's threads add up and store a row each.
  let row = lane % 16u;
  if (row >= THIN) { return; }
  var total = 0.0;
  for (var i = lane - row; i < lane - row + 16u; i++) { total += partial[i][row]; }
  store(row, col, total);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  if (params.rows <= THIN) {
    thin(group, lane);
  } else {
    tiled(group, lane);
  }
}
