/**
 * Two of ggml's "k" types: super-blocks of 256 values of a row, whose sub-blocks have scales that are quantised
 * themselves (`ggml-quants.c`, dequantize_row_q4_K and dequantize_row_q6_K). They are read, not written: no kernel
 * takes them. Hosts are little-endian.
 */

import { f16ToF32 } from "./half.js";

/** Values of a super-block. */
export const SUPER_BLOCK = 256;
/** Bytes of a super-block of each type. */
export const Q4_K_BYTES = 2 + 2 + 12 + 128;
export const Q6_K_BYTES = 128 + 64 + 16 + 2;

/** The f16 at a place of every super-block. */
function readHalves(bytes: Uint8Array, blockBytes: number, place: number): Float32Array {
  const halves = new Uint16Array(bytes.length / blockBytes);
  for (let i = 0; i < halves.length; i++) {
    const at = i * blockBytes + place;
    halves[i] = (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
  }
  return f16ToF32(halves);
}

/**
 * The values of q4_K super-blocks, to the bit as f32 arithmetic has them: d · s · q - dmin · m for each of eight
 * sub-blocks of 32, where s and m have six bits and q has four.
 * @param bytes whole super-blocks: d and dmin (f16), twelve bytes of s and m, 128 bytes of q
 */
export function q4kToF32(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const scales = readHalves(bytes, Q4_K_BYTES, 0);
  const minima = readHalves(bytes, Q4_K_BYTES, 2);
  const values = new Float32Array(scales.length * SUPER_BLOCK);
  for (let block = 0; block < scales.length; block++) {
    const packed = bytes.subarray(block * Q4_K_BYTES + 4, block * Q4_K_BYTES + 16);
    const quants = block * Q4_K_BYTES + 16;
    for (let sub = 0; sub < 8; sub++) {
      const scale = Math.fround((scales[block] as number) * sixBits(packed, sub, 0));
      const minimum = Math.fround((minima[block] as number) * sixBits(packed, sub, 4));
      // Two sub-blocks share 32 bytes: the first has the low halves, the second the high ones.
      const from = quants + 32 * (sub >> 1);
      const shift = 4 * (sub & 1);
      const to = block * SUPER_BLOCK + 32 * sub;
      for (let i = 0; i < 32; i++) {
        const quant = ((bytes[from + i] as number) >> shift) & 15;
        values[to + i] = Math.fround(scale * quant) - minimum;
      }
    }
  }
  return values;
}

/**
 * A scale (from byte 0 on) or a minimum (from 4 on) of a sub-block: those of the first four lie in the low bits of
 * their bytes, those of the others in the halves of the last four bytes and the bits that are left of the first.
 */
function sixBits(packed: Uint8Array, sub: number, from: 0 | 4): number {
  if (sub < 4) return (packed[from + sub] as number) & 63;
  const low = ((packed[sub + 4] as number) >> from) & 15;
  return low | (((packed[from + sub - 4] as number) >> 6) << 4);
}

/**
 * The values of q6_K super-blocks, to the bit as f32 arithmetic has them: d · s · (q - 32) for each of sixteen
 * sub-blocks of 16, where s is an i8 and q has six bits.
 * @param bytes whole super-blocks: 128 bytes of the low four bits of q, 64 of the high two, 16 of s, and d (f16)
 */
export function q6kToF32(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const scales = readHalves(bytes, Q6_K_BYTES, 208);
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  const values = new Float32Array(scales.length * SUPER_BLOCK);
  for (let block = 0; block < scales.length; block++) {
    const at = block * Q6_K_BYTES;
    for (let sub = 0; sub < 16; sub++) {
      const scale = Math.fround((scales[block] as number) * (signed[at + 192 + sub] as number));
      // Each half of a super-block is four runs of 32: low bits in the lower halves of 64 bytes, then in their
      // upper ones; high bits in the four pairs of 32 bytes.
      const half = sub >> 3;
      const run = (sub & 7) >> 1;
      const inRun = 16 * (sub & 1);
      const low = at + 64 * half + 32 * (run & 1) + inRun;
      const high = at + 128 + 32 * half + inRun;
      const to = block * SUPER_BLOCK + 16 * sub;
      for (let i = 0; i < 16; i++) {
        const lowBits = ((bytes[low + i] as number) >> (4 * (run >> 1))) & 15;
        const highBits = ((bytes[high + i] as number) >> (2 * run)) & 3;
        values[to + i] = scale * ((lowBits | (highBits << 4)) - 32);
      }
    }
  }
  return values;
}
