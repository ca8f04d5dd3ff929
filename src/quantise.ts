/**
 * ggml's blocks of 32 values of a row: a scale d (f16), then the values in units of it, rounded as ggml's reference
 * quantisers do (`ggml-quants.c`, quantize_row_q8_0_ref and quantize_row_q4_0_ref). Hosts are little-endian.
 */

import { f16ToF32, f32ToF16 } from "./half.js";

/** Values of a block. */
export const BLOCK = 32;
/** Bytes of a block of each type. */
export const Q8_0_BYTES = 2 + 32;
export const Q4_0_BYTES = 2 + 16;

/** The scale of each block as f16. Throws RangeError where one is beyond f16, or a value is not finite. */
function storedScales(scales: Float32Array, type: string): Uint16Array {
  const halves = f32ToF16(scales);
  const bad = halves.findIndex((half) => (half & 0x7c00) === 0x7c00);
  if (bad >= 0) {
    throw new RangeError(
      `${type} cannot hold the values from index ${bad * BLOCK} on: their scale is ${scales[bad]}`,
    );
  }
  return halves;
}

/** The value of the largest magnitude, the first where several are; NaN where one is NaN. */
function largest(values: Float32Array): number {
  let most = 0;
  for (const value of values) {
    if (Number.isNaN(value)) return value;
    if (Math.abs(value) > Math.abs(most)) most = value;
  }
  return most;
}

/** Bytes of whole blocks: `scaleOf` gives d from the value of the largest magnitude, `put` the rest of a block. */
function blocks(
  values: Float32Array,
  type: string,
  blockBytes: number,
  scaleOf: (largest: number) => number,
  put: (to: Uint8Array, values: Float32Array, inverse: number) => void,
): Uint8Array<ArrayBuffer> {
  const count = values.length / BLOCK;
  const scales = new Float32Array(count);
  const block = (i: number) => values.subarray(i * BLOCK, (i + 1) * BLOCK);
  for (let i = 0; i < count; i++) scales[i] = scaleOf(largest(block(i)));
  const halves = storedScales(scales, type);
  const bytes = new Uint8Array(count * blockBytes);
  for (let i = 0; i < count; i++) {
    const to = bytes.subarray(i * blockBytes, (i + 1) * blockBytes);
    const half = halves[i] as number;
    to[0] = half & 0xff;
    to[1] = half >> 8;
    // Rounded in units of the scale before it was rounded itself, all in f32, as ggml has it.
    const scale = scales[i] as number;
    put(to.subarray(2), block(i), scale === 0 ? 0 : Math.fround(1 / scale));
  }
  return bytes;
}

/**
 * q8_0: d = max|x| / 127, then round(x / d) as i8, halves away from zero.
 * @param values whole blocks
 * @throws RangeError for a value that is not finite, or a scale beyond f16
 */
export function f32ToQ8(values: Float32Array): Uint8Array<ArrayBuffer> {
  const scaleOf = (most: number) => Math.fround(Math.abs(most) / 127);
  return blocks(values, "q8_0", Q8_0_BYTES, scaleOf, (to, block, inverse) => {
    for (let i = 0; i < BLOCK; i++) {
      const scaled = Math.fround((block[i] as number) * inverse);
      to[i] = Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5);
    }
  });
}

/**
 * q4_0: d = m / -8 for the value m of the largest magnitude, then min(15, ⌊x / d + 8.5⌋) in four bits: value i in
 * the low half of byte i, value i + 16 in its high half.
 * @param values whole blocks
 * @throws RangeError for a value that is not finite, or a scale beyond f16
 */
export function f32ToQ4(values: Float32Array): Uint8Array<ArrayBuffer> {
  const scaleOf = (most: number) => most / -8;
  return blocks(values, "q4_0", Q4_0_BYTES, scaleOf, (to, block, inverse) => {
    const nibble = (i: number) => Math.min(15, Math.floor((block[i] as number) * inverse + 8.5));
    for (let i = 0; i < BLOCK / 2; i++) to[i] = nibble(i) | (nibble(i + BLOCK / 2) << 4);
  });
}

/** The scales of blocks. */
function readScales(bytes: Uint8Array, blockBytes: number): Float32Array {
  const halves = new Uint16Array(bytes.length / blockBytes);
  for (let i = 0; i < halves.length; i++) {
    halves[i] = (bytes[i * blockBytes] as number) | ((bytes[i * blockBytes + 1] as number) << 8);
  }
  return f16ToF32(halves);
}

/** The values of q8_0 blocks, exact. */
export function q8ToF32(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const scales = readScales(bytes, Q8_0_BYTES);
  const values = new Float32Array(scales.length * BLOCK);
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let i = 0; i < values.length; i++) {
    const block = Math.floor(i / BLOCK);
    values[i] = (scales[block] as number) * (signed[block * Q8_0_BYTES + 2 + (i % BLOCK)] as number);
  }
  return values;
}

/** The values of q4_0 blocks, exact. */
export function q4ToF32(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const scales = readScales(bytes, Q4_0_BYTES);
  const values = new Float32Array(scales.length * BLOCK);
  for (let i = 0; i < values.length; i++) {
    const block = Math.floor(i / BLOCK);
    const byte = bytes[block * Q4_0_BYTES + 2 + (i % (BLOCK / 2))] as number;
    const nibble = i % BLOCK < BLOCK / 2 ? byte & 15 : byte >> 4;
    values[i] = (scales[block] as number) * (nibble - 8);
  }
  return values;
}
