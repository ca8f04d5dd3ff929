// Adds the gradients of q, k and v, recomputing each tile's softmax from the log-sum-exp (FlashAttention-2,
// Dao 2023). Operands and `stats` as attention.wgsl and attention_delta.wgsl left them; grid.y: batch.
//
// The first workgroups, TILE keys of a kv head each, add dk and dv over the tiles of queries of all heads
// that read it; the others, TILE queries of a head each, add dq over the tiles of keys. So every number has
// one owner and one order of its sum. Both compute a tile of scores with what they own as its rows and the
// others as its columns. Thread (x, y) has the rows y + 8i as the lanes i of a vector, with the columns x +
// 8j.

struct Params {
  batch: u32,
  q_len: u32,
  kv_len: u32,
  kv_rows: u32,
  heads: u32,
  kv_heads: u32,
  head_dim: u32,
  window: u32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read_write> dq: array<f32>;
@group(0) @binding(1) var<storage, read_write> dk: array<f32>;
@group(0) @binding(2) var<storage, read_write> dv: array<f32>;
@group(0) @binding(3) var<storage, read_write> dout: array<f32>;
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> k: array<f32>;
@group(0) @binding(6) var<storage, read_write> v: array<f32>;
@group(0) @binding(7) var<storage, read_write> stats: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

const TILE = 32u;
// Numbers of a head in workgroup memory at once.
const CHUNK = 32u;
// Vectors of a row: one more than there are, so that neighbouring rows lie in different banks.
const PITCH = CHUNK / 4u + 1u;

// What load and add go to.
const Q = 0u;
const K = 1u;
const V = 2u;
const DOUT = 3u;

var<workgroup> rows: array<vec4f, TILE * PITCH>;
var<workgroup> cols: array<vec4f, TILE * PITCH>;
// By column, vectors of four rows.
var<workgroup> factors: array<vec4f, TILE * PITCH>;

// Where a row of `what` begins; rows past the last repeat it.
fn row_start(what: u32, batch: u32, head: u32, row: u32) -> u32 {
  if (what == Q || what == DOUT) {
    return ((batch * params.q_len + min(row, params.q_len - 1u)) * params.heads + head) * params.head_dim;
  }
  let kv_head = head * params.kv_heads / params.heads;
  let key = min(row, params.kv_len - 1u);
  return ((batch * params.kv_rows + key) * params.kv_heads + kv_head) * params.head_dim;
}

// Numbers d to d + 3 of a row, zeros past the end of the head.
fn load4(what: u32, batch: u32, head: u32, row: u32, d: u32) -> vec4f {
  let i = row_start(what, batch, head, row) + d;
  var loaded: vec4f;
  switch what {
    case Q: { loaded = vec4f(q[i], q[i + 1u], q[i + 2u], q[i + 3u]); }
    case K: { loaded = vec4f(k[i], k[i + 1u], k[i + 2u], k[i + 3u]); }
    case V: { loaded = vec4f(v[i], v[i + 1u], v[i + 2u], v[i + 3u]); }
    default: { loaded = vec4f(dout[i], dout[i + 1u], dout[i + 2u], dout[i + 3u]); }
  }
  return select(vec4f(0.0), loaded, vec4u(d, d + 1u, d + 2u, d + 3u) < vec4u(params.head_dim));
}

// Products of TILE rows with TILE columns over the head: of each of a thread's columns a vector over its
// rows.
fn products(
  row_what: u32, col_what: u32, batch: u32, head: u32, first_row: u32, first_col: u32, lane: u32,
) -> array<vec4f, 4> {
  let x = lane % 8u;
  let y = lane / 8u;
  var result = array<vec4f, 4>();
  for (var chunk = 0u; chunk < params.head_dim; chunk += CHUNK) {
    let width = min(8u, (params.head_dim - chunk + 3u) / 4u);
    for (var i = lane; i < TILE * width; i += 64u) {
      let at = i / width * PITCH + i % width;
      let d = chunk + i % width * 4u;
      rows[at] = load4(row_what, batch, head, first_row + i / width, d);
      cols[at] = load4(col_what, batch, head, first_col + i / width, d);
    }
    workgroupBarrier();
    for (var d = 0u; d < width; d++) {
      let r0 = rows[y * PITCH + d];
      let r1 = rows[(y + 8u) * PITCH + d];
      let r2 = rows[(y + 16u) * PITCH + d];
      let r3 = rows[(y + 24u) * PITCH + d];
      for (var j = 0u; j < 4u; j++) {
        let c = cols[(x + 8u * j) * PITCH + d];
        result[j] += vec4f(dot(r0, c), dot(r1, c), dot(r2, c), dot(r3, c));
      }
    }
    workgroupBarrier();
  }
  return result;
}

// to[row] += Σ factor[row, col] · what[col]: a thread adds the numbers 4x to 4x + 3 of every chunk.
fn add_sums(
  to: u32, what: u32, batch: u32, head: u32, first_row: u32, first_col: u32, factor: array<vec4f, 4>,
  lane: u32,
) {
  let x = lane % 8u;
  let y = lane / 8u;
  let last_row = select(params.kv_len, params.q_len, to == Q);
  let last_col = select(params.q_len, params.kv_len, to == Q);
  for (var j = 0u; j < 4u; j++) { factors[(x + 8u * j) * PITCH + y] = factor[j]; }
  for (var chunk = 0u; chunk < params.head_dim; chunk += CHUNK) {
    let width = min(8u, (params.head_dim - chunk + 3u) / 4u);
    for (var i = lane; i < TILE * width; i += 64u) {
      let d = chunk + i % width * 4u;
      cols[i / width * PITCH + i % width] = load4(what, batch, head, first_col + i / width, d);
    }
    workgroupBarrier();
    // On SwiftShader a variable without an initial value is zero only the first time round a loop.
    var sums = array<vec4f, 4>();
    // Threads past the end of the head have nothing to add.
    let count = select(0u, min(TILE, last_col - first_col), x < width);
    for (var j = 0u; j < count; j++) {
      let f = factors[j * PITCH + y];
      let c = cols[j * PITCH + x];
      sums[0] += f.x * c;
      sums[1] += f.y * c;
      sums[2] += f.z * c;
      sums[3] += f.w * c;
    }
    for (var i = 0u; i < 4u; i++) {
      let row = first_row + y + 8u * i;
      if (row >= last_row) { break; }
      let at = row_start(to, batch, head, row);
      let d = chunk + x * 4u;
      for (var n = 0u; n < 4u && d + n < params.head_dim; n++) { add(to, at + d + n, sums[i][n]); }
    }
    workgroupBarrier();
  }
}

fn add(to: u32, i: u32, value: f32) {
  switch to {
    case Q: { dq[i] += value; }
    case K: { dk[i] += value; }
    default: { dv[i] += value; }
  }
}

fn seen(query: u32, key: u32) -> bool {
  let position = params.kv_len - params.q_len + query;
  return query < params.q_len && key <= position && (params.window == 0u || key + params.window > position);
}

// One tile: the softmax of its scores and the scores' gradient, added to what the workgroup owns.
fn tile(owns_keys: bool, batch: u32, head: u32, first_row: u32, first_col: u32, lane: u32) {
  let row_score = select(Q, K, owns_keys);
  let row_slope = select(DOUT, V, owns_keys);
  let col_score = select(K, Q, owns_keys);
  let col_slope = select(V, DOUT, owns_keys);
  var p = products(row_score, col_score, batch, head, first_row, first_col, lane);
  var slope = products(row_slope, col_slope, batch, head, first_row, first_col, lane);
  let stat_start = (batch * params.heads + head) * params.q_len;
  for (var j = 0u; j < 4u; j++) {
    for (var i = 0u; i < 4u; i++) {
      let row = first_row + lane / 8u + 8u * i;
      let col = first_col + lane % 8u + 8u * j;
      let query = select(row, col, owns_keys);
      if (seen(query, select(col, row, owns_keys))) {
        let stat = (stat_start + query) * 2u;
        p[j][i] = exp(p[j][i] * params.scale - stats[stat]);
        slope[j][i] = p[j][i] * (slope[j][i] - stats[stat + 1u]) * params.scale;
      } else {
        p[j][i] = 0.0;
        slope[j][i] = 0.0;
      }
    }
  }
  if (owns_keys) { add_sums(V, DOUT, batch, head, first_row, first_col, p, lane); }
  add_sums(row_score, col_score, batch, head, first_row, first_col, slope, lane);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let offset = params.kv_len - params.q_len;
  let key_tiles = (params.kv_len + TILE - 1u) / TILE;
  let query_tiles = (params.q_len + TILE - 1u) / TILE;
  let owns_keys = group.x < key_tiles * params.kv_heads;
  var first_row: u32;
  var head: u32;
  var heads = 1u;
  // The columns that the tile's rows see, or are seen by.
  var begin = 0u;
  var end: u32;
  if (owns_keys) {
    first_row = group.x % key_tiles * TILE;
    heads = params.heads / params.kv_heads;
    head = group.x / key_tiles * heads;
    begin = max(first_row, offset) - offset;
    end = params.q_len;
    if (params.window > 0u) {
      end = min(end, max(first_row + TILE - 1u + params.window, offset) - offset);
    }
  } else {
    let index = group.x - key_tiles * params.kv_heads;
    first_row = index % query_tiles * TILE;
    head = index / query_tiles;
    if (params.window > 0u) {
      begin = max(offset + first_row + 1u, params.window) - params.window;
    }
    end = min(offset + first_row + TILE, params.kv_len);
  }
  for (let last = head + heads; head < last; head++) {
    for (var first_col = begin / TILE * TILE; first_col < end; first_col += TILE) {
      tile(owns_keys, group.y, head, first_row, first_col, lane);
    }
  }
}
