// out(m, n) = alpha · A(m, k) · B(k, n) + base, or += without one. Strides in elements choose the
// transposition; a batch stride of 0 shares the operand, a base_m of 0 the base's one row. grid.z: batch.
//
// Products of more than THIN rows go by tiles of 64 × 64, of which a thread holds 4 × 4 in registers; 16
// steps of k of both operands lie in workgroup memory, as vectors of four rows of A and of four columns of B,
// so that a step costs a thread two loads for 16 multiplications. Few rows against a transposed B, as in
// decoding, go by dot products, since 64 rows of such a tile would be idle: 16 threads a column.

struct Params {
  batch: u32,
  m: u32,
  k: u32,
  n: u32,
  a_batch: u32,
  a_m: u32,
  a_k: u32,
  b_batch: u32,
  b_k: u32,
  b_n: u32,
  out_batch: u32,
  out_m: u32,
  base_m: u32,
  has_base: u32,
  accumulate: u32,
  alpha: f32,
}

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> base: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const TILE = 64u;
const STEP = 16u;
// Vectors from one k to the next: one more than there are, so that neighbours in k lie in different banks.
const PITCH = TILE / 4u + 1u;
// As in src/ops/matmul.ts, whose grid is different there.
const THIN = 4u;
const THIN_COLS = 16u;

var<workgroup> a_tile: array<vec4f, STEP * PITCH>;
var<workgroup> b_tile: array<vec4f, STEP * PITCH>;
var<workgroup> partial: array<vec4f, 256>;

// Zero outside the matrix, where the load itself is kept inside the buffer by WebGPU.
fn load_a(start: u32, row: u32, k: u32) -> f32 {
  return select(0.0, a[start + row * params.a_m + k * params.a_k], row < params.m && k < params.k);
}

fn load_b(start: u32, k: u32, col: u32) -> f32 {
  return select(0.0, b[start + k * params.b_k + col * params.b_n], col < params.n && k < params.k);
}

fn store(batch: u32, row: u32, col: u32, sum: f32) {
  if (row >= params.m || col >= params.n) { return; }
  let at = batch * params.out_batch + row * params.out_m + col;
  var value = params.alpha * sum;
  if (params.accumulate != 0u) {
    value += out[at];
  } else if (params.has_base != 0u) {
    value += base[row * params.base_m + col];
  }
  out[at] = value;
}

fn tiled(group: vec3u, lane: u32) {
  let first_row = group.y * TILE;
  let first_col = group.x * TILE;
  let a_start = group.z * params.a_batch;
  let b_start = group.z * params.b_batch;
  // (step of k, vector of four) that a thread fetches: neighbours go along the dimension that lies in a row.
  let along = vec2u(lane % STEP, lane / STEP);
  let a_at = select(along.yx, along, params.a_k == 1u);
  let b_at = select(along.yx, along, params.b_k == 1u);
  let a_row = first_row + a_at.y * 4u;
  let b_col = first_col + b_at.y * 4u;
  let x = lane % 16u;
  let y = lane / 16u;
  var row0 = vec4f(0.0);
  var row1 = vec4f(0.0);
  var row2 = vec4f(0.0);
  var row3 = vec4f(0.0);
  for (var start = 0u; start < params.k; start += STEP) {
    let ka = start + a_at.x;
    a_tile[a_at.x * PITCH + a_at.y] = vec4f(
      load_a(a_start, a_row, ka),
      load_a(a_start, a_row + 1u, ka),
      load_a(a_start, a_row + 2u, ka),
      load_a(a_start, a_row + 3u, ka),
    );
    let kb = start + b_at.x;
    b_tile[b_at.x * PITCH + b_at.y] = vec4f(
      load_b(b_start, kb, b_col),
      load_b(b_start, kb, b_col + 1u),
      load_b(b_start, kb, b_col + 2u),
      load_b(b_start, kb, b_col + 3u),
    );
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let av = a_tile[i * PITCH + y];
      let bv = b_tile[i * PITCH + x];
      row0 += av.x * bv;
      row1 += av.y * bv;
      row2 += av.z * bv;
      row3 += av.w * bv;
    }
    workgroupBarrier();
  }
  let row = first_row + y * 4u;
  let col = first_col + x * 4u;
  let sums = array(row0, row1, row2, row3);
  for (var i = 0u; i < 16u; i++) { store(group.z, row + i / 4u, col + i % 4u, sums[i / 4u][i % 4u]); }
}

fn thin(group: vec3u, lane: u32) {
  let col = group.x * THIN_COLS + lane / 16u;
  let a_start = group.z * params.a_batch;
  let b_start = group.z * params.b_batch;
  var sum = vec4f(0.0);
  for (var k = lane % 16u; k < params.k; k += 16u) {
    let av = vec4f(
      load_a(a_start, 0u, k),
      load_a(a_start, 1u, k),
      load_a(a_start, 2u, k),
      load_a(a_start, 3u, k),
    );
    sum += av * load_b(b_start, k, col);
  }
  partial[lane] = sum;
  workgroupBarrier();
  // The first of a column's threads add up and store a row each.
  let row = lane % 16u;
  if (row >= THIN) { return; }
  var total = 0.0;
  for (var i = lane - row; i < lane - row + 16u; i++) { total += partial[i][row]; }
  store(group.z, row, col, total);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  if (params.m <= THIN && params.a_k == 1u && params.b_k == 1u) {
    thin(group, lane);
  } else {
    tiled(group, lane);
  }
}
