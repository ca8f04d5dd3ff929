import { F16 } from "./quant";

/**
 * f32 to binary16, to the nearest, ties to even. What is too large becomes the largest finite, 65504, and so does NaN:
 * the kernels that read halves know no exponent of 31.
 */
// @ts-ignore: decorator
@inline
function half(value: f32): u16 {
  const bits = reinterpret<u32>(value);
  const sign = bits >>> 16 & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x477ff000) return <u16>(sign | 0x7bff);
  // Below 2^-14: a step of f32 in [0.5, 1) is 2^-24, that of binary16's subnormals, so the sum rounds right.
  if (magnitude < 0x38800000) {
    return <u16>(sign | reinterpret<u32>(reinterpret<f32>(magnitude) + 0.5) - 0x3f000000);
  }
  return <u16>(sign | magnitude - 0x38000000 + 0xfff + (magnitude >>> 13 & 1) >>> 13);
}

// @ts-ignore: decorator
@inline
function storeRow(to: usize, from: usize, width: u32, kv_type: u32): void {
  if (kv_type != F16) {
    memory.copy(to, from, <usize>width << 2);
    return;
  }
  for (const end = to + (<usize>width << 1); to < end; to += 2) {
    store<u16>(to, half(load<f32>(from)));
    from += 4;
  }
}

/**
 * k and v (batch, rows, width) into the caches (batch, cache_rows, width) of f32 or f16, as `kv_type` says, from row
 * `position` on, or positions[b] where there are such (batch). Range: batch · rows.
 */
export function kv_append(
  k_cache: usize, v_cache: usize, k: usize, v: usize, positions: usize,
  batch: u32, rows: u32, width: u32, cache_rows: u32, position: u32, kv_type: u32, has_positions: u32,
  begin: u32, end: u32,
): void {
  const from = <usize>width << 2;
  const to = kv_type == F16 ? from >> 1 : from;
  for (let row = begin; row < end; row++) {
    const b = row / rows;
    const first = has_positions ? load<u32>(positions + (<usize>b << 2)) : position;
    const at = <usize>(b * cache_rows + first + row - b * rows) * to;
    storeRow(k_cache + at, k + <usize>row * from, width, kv_type);
    storeRow(v_cache + at, v + <usize>row * from, width, kv_type);
  }
}
