// k and v (batch, rows, width) into the caches (batch, cache_rows, width) of f32 or f16, as `kv_type` says, from row
// `position` on, or positions[b] where there are such (batch). A thread writes one word of each cache: a number, or two
// halves, of which an even width leaves none alone.

struct Params {
  batch: u32,
  rows: u32,
  width: u32,
  cache_rows: u32,
  position: u32,
  kv_type: u32,
  has_positions: u32,
}

@group(0) @binding(0) var<storage, read_write> k_cache: array<u32>;
@group(0) @binding(1) var<storage, read_write> v_cache: array<u32>;
@group(0) @binding(2) var<storage, read_write> k: array<f32>;
@group(0) @binding(3) var<storage, read_write> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> positions: array<u32>;
@group(0) @binding(5) var<uniform> params: Params;

const F16 = 1u;

// f32 to binary16, to the nearest, ties to even; what is too large becomes 65504, and so does NaN. By hand, since
// pack2x16float may round either way.
fn to_f16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x477ff000u) { return sign | 0x7bffu; }
  // A multiple of 2^-24, the step of binary16's subnormals; f32's round is to the even of two.
  if (magnitude < 0x38800000u) { return sign | u32(round(bitcast<f32>(magnitude) * 0x1p24)); }
  return sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  let is_half = params.kv_type == F16;
  let words = select(params.width, params.width / 2u, is_half);
  if (i >= params.batch * params.rows * words) { return; }
  let row = i / words;
  let b = row / params.rows;
  var first = params.position;
  if (params.has_positions != 0u) { first = positions[b]; }
  let to = (b * params.cache_rows + first + row % params.rows) * words + i % words;
  if (is_half) {
    k_cache[to] = to_f16(k[2u * i]) | (to_f16(k[2u * i + 1u]) << 16u);
    v_cache[to] = to_f16(v[2u * i]) | (to_f16(v[2u * i + 1u]) << 16u);
  } else {
    k_cache[to] = bitcast<u32>(k[i]);
    v_cache[to] = bitcast<u32>(v[i]);
  }
}
