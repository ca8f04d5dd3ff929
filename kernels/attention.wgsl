// out (batch, q_len, heads, head_dim) = softmax(scale · q · kᵀ) · v, query t at position kv_len - q_len + t, or at
// positions[b] + t in sequence b where there are such (batch). k, v: (batch, kv_rows, kv_heads, head_dim), of which the
// rows up to the last query's position are used, at most kv_len; f32, or f16 where kv_type says so. window: keys seen,
// the position's own included; 0 for all. stats (batch, heads, q_len, 2): log-sum-exp, and room for the backward.
//
// A workgroup takes TILE rows of a kv head over tiles of as many keys, with the running softmax of Milakov and
// Gimelshein (2018). The rows are its queries, of each of them all the heads that read the kv head: so a single query,
// as in decoding, reads keys and values once for all these heads. The head goes through workgroup memory in chunks of
// 32 numbers, so that its length is not bounded by it. Thread (x, y) has the rows y + 8i as the lanes i of a vector:
// their scores with the keys x + 8j, and of their output the numbers 4x to 4x + 3 of every chunk.

struct Params {
  batch: u32,
  q_len: u32,
  kv_len: u32,
  kv_rows: u32,
  heads: u32,
  kv_heads: u32,
  head_dim: u32,
  window: u32,
  kv_type: u32,
  has_positions: u32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> stats: array<f32>;
@group(0) @binding(2) var<storage, read_write> q: array<f32>;
@group(0) @binding(3) var<storage, read_write> k: array<u32>;
@group(0) @binding(4) var<storage, read_write> v: array<u32>;
@group(0) @binding(5) var<storage, read_write> positions: array<u32>;
@group(0) @binding(6) var<uniform> params: Params;

const F16 = 1u;

const TILE = 32u;
// Numbers of a head in workgroup memory at once, and the most chunks that a head has (head_dim up to 256).
const CHUNK = 32u;
const CHUNKS = 8u;
// Vectors of a row: one more than there are, so that neighbouring rows lie in different banks.
const PITCH = CHUNK / 4u + 1u;
// No score is less; WGSL cannot write -Infinity.
const LOWEST = -3.4028234e38;

var<workgroup> queries: array<vec4f, TILE * PITCH>;
// The keys of the tile, then its values.
var<workgroup> keys: array<vec4f, TILE * PITCH>;
// e^(score - maximum): by key, vectors of four queries.
var<workgroup> weights: array<vec4f, TILE * PITCH>;
var<workgroup> maxima: array<vec4f, 64>;
// Of the sequence's first query.
var<workgroup> first_position: u32;

// Four numbers of a row, zeros past the end of the head.
fn load_q(at: u32, d: u32) -> vec4f {
  return inside(d, vec4f(q[at + d], q[at + d + 1u], q[at + d + 2u], q[at + d + 3u]));
}

// Halves lie two in a word, and begin with one: heads have an even number of them. A device may take subnormal halves
// for 0, which is an error of 6e-5 at most.
fn load_k(at: u32, d: u32) -> vec4f {
  let i = at + d;
  if (params.kv_type == F16) {
    return inside(d, vec4f(unpack2x16float(k[i / 2u]), unpack2x16float(k[i / 2u + 1u])));
  }
  return inside(d, bitcast<vec4f>(vec4u(k[i], k[i + 1u], k[i + 2u], k[i + 3u])));
}

fn load_v(at: u32, d: u32) -> vec4f {
  let i = at + d;
  if (params.kv_type == F16) {
    return inside(d, vec4f(unpack2x16float(v[i / 2u]), unpack2x16float(v[i / 2u + 1u])));
  }
  return inside(d, bitcast<vec4f>(vec4u(v[i], v[i + 1u], v[i + 2u], v[i + 3u])));
}

fn inside(d: u32, loaded: vec4f) -> vec4f {
  return select(vec4f(0.0), loaded, vec4u(d, d + 1u, d + 2u, d + 3u) < vec4u(params.head_dim));
}

@compute @workgroup_size(8, 8)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let x = local.x;
  let y = local.y;
  let first_row = group.x * TILE;
  let kv_head = group.y;
  let batch = group.z;
  let heads = params.heads / params.kv_heads;
  let rows = params.q_len * heads;
  // What comes from memory bounds no loop with a barrier unless the group is known to agree on it.
  if (lane == 0u) {
    first_position = params.kv_len - params.q_len;
    if (params.has_positions != 0u) { first_position = positions[batch]; }
  }
  let offset = workgroupUniformLoad(&first_position);
  let kv_len = offset + params.q_len;
  let vectors = (params.head_dim + 3u) / 4u;
  let chunks = (params.head_dim + CHUNK - 1u) / CHUNK;

  // Keys that the tile's first query sees first and its last query last.
  var begin = 0u;
  if (params.window > 0u) {
    begin = max(offset + first_row / heads + 1u, params.window) - params.window;
  }
  let end = min(offset + (first_row + TILE - 1u) / heads + 1u, kv_len);

  // Four vectors, one a query, of every chunk.
  var sums: array<vec4f, 4u * CHUNKS>;
  var maximum = vec4f(LOWEST);
  var total = vec4f(0.0);
  for (var first_key = begin / TILE * TILE; first_key < end; first_key += TILE) {
    // Of each of the keys x + 8j a vector over queries. On SwiftShader a variable without an initial value is
    // zero only the first time round.
    var scores = array<vec4f, 4>();
    for (var chunk = 0u; chunk < chunks; chunk++) {
      let width = min(8u, vectors - chunk * 8u);
      for (var i = lane; i < TILE * width; i += 64u) {
        let row = i / width;
        let at = row * PITCH + i % width;
        let d = chunk * CHUNK + i % width * 4u;
        let key = min(first_key + row, kv_len - 1u);
        queries[at] = load_q(query_at(batch, kv_head, min(first_row + row, rows - 1u)) * params.head_dim, d);
        keys[at] = load_k(
          ((batch * params.kv_rows + key) * params.kv_heads + kv_head) * params.head_dim, d);
      }
      workgroupBarrier();
      for (var d = 0u; d < width; d++) {
        let q0 = queries[y * PITCH + d];
        let q1 = queries[(y + 8u) * PITCH + d];
        let q2 = queries[(y + 16u) * PITCH + d];
        let q3 = queries[(y + 24u) * PITCH + d];
        for (var j = 0u; j < 4u; j++) {
          let kj = keys[(x + 8u * j) * PITCH + d];
          scores[j] += vec4f(dot(q0, kj), dot(q1, kj), dot(q2, kj), dot(q3, kj));
        }
      }
      workgroupBarrier();
    }

    let position = vec4u(offset) + (vec4u(first_row + y) + vec4u(0u, 8u, 16u, 24u)) / vec4u(heads);
    var top = maximum;
    for (var j = 0u; j < 4u; j++) {
      scores[j] = select(vec4f(LOWEST), scores[j] * params.scale, seen(first_key + x + 8u * j, kv_len, position));
      top = max(top, scores[j]);
    }
    maxima[lane] = top;
    workgroupBarrier();
    for (var i = 0u; i < 8u; i++) { top = max(top, maxima[y * 8u + i]); }
    for (var j = 0u; j < 4u; j++) {
      let e = exp(scores[j] - top);
      weights[(x + 8u * j) * PITCH + y] = select(vec4f(0.0), e, seen(first_key + x + 8u * j, kv_len, position));
    }
    // A first maximum of LOWEST has no sum to correct, and a difference that exp need not bear.
    let correction = exp(max(maximum - top, vec4f(-100.0)));
    maximum = top;
    total *= correction;

    for (var chunk = 0u; chunk < chunks; chunk++) {
      let width = min(8u, vectors - chunk * 8u);
      for (var i = lane; i < TILE * width; i += 64u) {
        let row = i / width;
        let key = min(first_key + row, kv_len - 1u);
        keys[row * PITCH + i % width] = load_v(
          ((batch * params.kv_rows + key) * params.kv_heads + kv_head) * params.head_dim,
          chunk * CHUNK + i % width * 4u);
      }
      workgroupBarrier();
      var sum0 = sums[chunk * 4u] * correction.x;
      var sum1 = sums[chunk * 4u + 1u] * correction.y;
      var sum2 = sums[chunk * 4u + 2u] * correction.z;
      var sum3 = sums[chunk * 4u + 3u] * correction.w;
      // Threads past the end of the head have nothing to add.
      let count = select(0u, min(TILE, end - first_key), x < width);
      for (var j = 0u; j < count; j++) {
        let weight = weights[j * PITCH + y];
        let value = keys[j * PITCH + x];
        sum0 += weight.x * value;
        sum1 += weight.y * value;
        sum2 += weight.z * value;
        sum3 += weight.w * value;
        if (chunk == 0u) { total += weight; }
      }
      sums[chunk * 4u] = sum0;
      sums[chunk * 4u + 1u] = sum1;
      sums[chunk * 4u + 2u] = sum2;
      sums[chunk * 4u + 3u] = sum3;
      workgroupBarrier();
    }
  }

  for (var i = 0u; i < 4u; i++) {
    let row = first_row + y + 8u * i;
    if (row >= rows) { break; }
    let at = query_at(batch, kv_head, row) * params.head_dim;
    for (var chunk = 0u; chunk < chunks; chunk++) {
      for (var j = 0u; j < 4u; j++) {
        let d = chunk * CHUNK + x * 4u + j;
        if (d < params.head_dim) { out[at + d] = sums[chunk * 4u + i][j] / total[i]; }
      }
    }
    if (x == 0u) {
      let stat = ((batch * params.heads + kv_head * heads + row % heads) * params.q_len + row / heads) * 2u;
      stats[stat] = maximum[i] + log(total[i]);
      stats[stat + 1u] = 0.0;
    }
  }
}

// Where a row of a kv head lies in q and out, in heads.
fn query_at(batch: u32, kv_head: u32, row: u32) -> u32 {
  let heads = params.heads / params.kv_heads;
  return (batch * params.q_len + row / heads) * params.heads + kv_head * heads + row % heads;
}

// Whether queries at these positions see a key.
fn seen(key: u32, kv_len: u32, position: vec4u) -> vec4<bool> {
  let near = vec4<bool>(params.window == 0u) | (vec4u(key + params.window) > position);
  return vec4<bool>(key < kv_len) & (vec4u(key) <= position) & near;
}
