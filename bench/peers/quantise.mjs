// Quantisation to ggml's block layouts (ggml-quants.c): blocks of 32 values in a row, a scale of f16 and integers.

import { f32ToF16 } from "../../dist/cli/bench/kit.js";

/** Values of a block. */
const BLOCK = 32;

/** q8_0: x ≈ d · q with q in [-127, 127]; 2 bytes of d, 32 of q. */
export function toQ8_0(values) {
  return toBlocks(values, 2 + BLOCK, (block, bytes) => {
    let most = 0;
    for (const x of block) most = Math.max(most, Math.abs(x));
    const d = Math.fround(most / 127);
    const inverse = d === 0 ? 0 : Math.fround(1 / d);
    for (const [i, x] of block.entries()) bytes[2 + i] = roundAway(Math.fround(x * inverse));
    return d;
  });
}

/**
 * q4_0: x ≈ d · (q - 8) with q in [0, 15]; d makes the value of largest magnitude exact. 2 bytes of d, 16 of q: the
 * first half of the block in the low nibbles, the second in the high ones.
 */
export function toQ4_0(values) {
  return toBlocks(values, 2 + BLOCK / 2, (block, bytes) => {
    let extreme = 0;
    for (const x of block) if (Math.abs(x) > Math.abs(extreme)) extreme = x;
    const d = Math.fround(extreme / -8);
    const inverse = d === 0 ? 0 : Math.fround(1 / d);
    const quantise = (x) => Math.min(15, Math.trunc(Math.fround(Math.fround(x * inverse) + 8.5)));
    for (let i = 0; i < BLOCK / 2; i++) {
      bytes[2 + i] = quantise(block[i]) | (quantise(block[i + BLOCK / 2]) << 4);
    }
    return d;
  });
}

/** The nearest integer, halves away from zero. */
function roundAway(x) {
  return Math.sign(x) * Math.round(Math.abs(x));
}

/** @param quantise fills the bytes behind the scale, which it returns */
function toBlocks(values, blockBytes, quantise) {
  if (values.length % BLOCK !== 0) throw new RangeError(`${values.length} values are no blocks of ${BLOCK}`);
  const count = values.length / BLOCK;
  const bytes = new Uint8Array(count * blockBytes);
  const scale = new Float32Array(1);
  for (let i = 0; i < count; i++) {
    const target = bytes.subarray(i * blockBytes, (i + 1) * blockBytes);
    scale[0] = quantise(values.subarray(i * BLOCK, (i + 1) * BLOCK), target);
    const [half] = f32ToF16(scale);
    target[0] = half & 255;
    target[1] = half >> 8;
  }
  return bytes;
}
