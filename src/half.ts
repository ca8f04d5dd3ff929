/** Conversions between f32 and the two half-width floats, on bit patterns. Hosts are little-endian. */

/** IEEE 754 binary16 to f32, exact; subnormals, infinities and the payload of NaNs are kept. */
export function f16ToF32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const values = new Float32Array(bits.length);
  const words = new Uint32Array(values.buffer);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i] as number;
    const magnitude = half & 0x7fff;
    // Exponent and mantissa at their places in f32; the product moves the bias from 15 to 127 and makes
    // subnormals normal. It is exact, as all of it is a power of two.
    words[i] = magnitude << 13;
    values[i] = (values[i] as number) * 2 ** 112;
    if (magnitude >= 0x7c00) words[i] = (words[i] as number) | 0x7f800000;
    words[i] = (words[i] as number) | ((half & 0x8000) << 16);
  }
  return values;
}

/** f32 to binary16, to the nearest, ties to even; beyond 65504 (+ half a step) it is infinite. */
export function f32ToF16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const halves = new Uint16Array(values.length);
  const scratch = new Float32Array(1);
  const word = new Uint32Array(scratch.buffer);
  for (let i = 0; i < values.length; i++) {
    scratch[0] = values[i] as number;
    const bits = word[0] as number;
    const sign = (bits >>> 16) & 0x8000;
    const magnitude = bits & 0x7fffffff;
    let half: number;
    if (magnitude > 0x7f800000) {
      half = 0x7e00 | ((magnitude >>> 13) & 0x3ff);
    } else if (magnitude >= 0x477ff000) {
      half = 0x7c00;
    } else if (magnitude < 0x38800000) {
      // Below 2^-14: a step of f32 in [0.5, 1) is 2^-24, that of binary16's subnormals, so the sum rounds right.
      scratch[0] = Math.abs(scratch[0] as number) + 0.5;
      half = (word[0] as number) - 0x3f000000;
    } else {
      half = (magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13;
    }
    halves[i] = sign | half;
  }
  return halves;
}

/** bfloat16 to f32, exact. */
export function bf16ToF32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] as number) << 16;
  return new Float32Array(words.buffer);
}

/** f32 to bfloat16, to the nearest, ties to even. */
export function f32ToBf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const bits = words[i] as number;
    const notANumber = (bits & 0x7fffffff) > 0x7f800000;
    halves[i] = notANumber ? (bits >>> 16) | 0x40 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
  }
  return halves;
}
