// out[t] = table[ids[t] - first], decoded, for ids in [first, first + count); other rows of out are left as they are.
// The table is stored as `weight_type`.

struct Params { n: u32, dim: u32, first: u32, count: u32, weight_type: u32 }

@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read_write> table: array<u32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

// One element of a matrix in a storage format, rows of `cols`; the types are ggml's numbers, blocks hold 32 elements
// along a row. The same in every kernel that reads stored weights.
const F16 = 1u;
const Q4_0 = 2u;
const Q8_0 = 8u;

fn byte_at(at: u32) -> u32 { return (table[at / 4u] >> (8u * (at % 4u))) & 0xffu; }

// Blocks have an even number of bytes, so that halves never straddle a word.
fn half_at(at: u32) -> u32 { return (table[at / 4u] >> (8u * (at % 4u))) & 0xffffu; }

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

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 256u + lane;
  if (i >= params.n * params.dim) { return; }
  // An id under `first` wraps round and is out of range too.
  let row = ids[i / params.dim] - params.first;
  if (row < params.count) { out[i] = weight_at(row, i % params.dim, params.dim, params.weight_type); }
}
