import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "./half.js";
import { BLOCK, f32ToQ4, f32ToQ8, Q4_0_BYTES, Q8_0_BYTES, q4ToF32, q8ToF32 } from "./quantise.js";

/** Formats that only weights are stored in; the kernels decode them inside the product. */
export type StorageType = "f16" | "bf16" | "q8_0" | "q4_0";

/** Element types. Kernels compute in f32; u32 holds token ids and indices. */
export type DType = "f32" | "u32" | StorageType;

/** What the weights of a model may be stored as. */
export type WeightType = "f32" | StorageType;

export const WEIGHT_TYPES: readonly WeightType[] = ["f32", "f16", "bf16", "q8_0", "q4_0"];

/** What the matrices of a model are to be kept as: one type for all, or each as it is stored. */
export type KeptType = WeightType | "stored";

interface Storage {
  /** Elements that are stored together; they lie along a row, which whole blocks fill. */
  readonly block: number;
  /** Of a block. */
  readonly bytes: number;
  /** The number that ggml gives the type, which kernels take as `weight_type`. */
  readonly ggml: number;
  readonly encode: (values: Float32Array) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => Float32Array<ArrayBuffer>;
}

const STORAGE: Readonly<Record<StorageType, Storage>> = {
  f16: {
    block: 1,
    bytes: 2,
    ggml: 1,
    encode: finiteHalves("f16", f32ToF16, 0x7c00),
    decode: halves(f16ToF32),
  },
  bf16: {
    block: 1,
    bytes: 2,
    ggml: 30,
    encode: finiteHalves("bf16", f32ToBf16, 0x7f80),
    decode: halves(bf16ToF32),
  },
  q8_0: { block: BLOCK, bytes: Q8_0_BYTES, ggml: 8, encode: f32ToQ8, decode: q8ToF32 },
  q4_0: { block: BLOCK, bytes: Q4_0_BYTES, ggml: 2, encode: f32ToQ4, decode: q4ToF32 },
};

/** @param exponent its bits; all of them set are infinity or NaN, which the kernels' decoders do not care for */
function finiteHalves(type: StorageType, encode: (values: Float32Array) => Uint16Array, exponent: number) {
  return (values: Float32Array): Uint8Array => {
    const encoded = encode(values);
    const bad = encoded.findIndex((half) => (half & exponent) === exponent);
    if (bad >= 0) throw new RangeError(`${type} cannot hold ${values[bad]}, at index ${bad}`);
    return new Uint8Array(encoded.buffer);
  };
}

function halves(decode: (bits: Uint16Array) => Float32Array<ArrayBuffer>) {
  return (bytes: Uint8Array) => decode(new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2));
}

/** Whether tensors of the type are weights in a storage format. */
export function isStorage(dtype: DType): dtype is StorageType {
  return dtype !== "f32" && dtype !== "u32";
}

/** Elements along a row that the type stores together. */
export function blockOf(dtype: DType): number {
  return isStorage(dtype) ? STORAGE[dtype].block : 1;
}

/** The number that kernels know a storage format by: ggml's. */
export function storageCode(dtype: StorageType): number {
  return STORAGE[dtype].ggml;
}

/**
 * Bytes of a tensor.
 * @throws RangeError where its rows are not whole blocks of the type
 */
export function bytesOf(dtype: DType, shape: readonly number[]): number {
  const size = shape.reduce((product, dim) => product * dim, 1);
  if (!isStorage(dtype)) return size * 4;
  const { block, bytes } = STORAGE[dtype];
  const cols = shape.at(-1) ?? 1;
  if (cols % block !== 0) throw new RangeError(`${dtype} wants rows of a multiple of ${block}, got ${cols}`);
  return (size / block) * bytes;
}

/**
 * Values as they are stored, rounded to the nearest that the type has.
 * @throws RangeError for values that are not finite or too large for it
 */
export function encode(dtype: StorageType, values: Float32Array): Uint8Array {
  return STORAGE[dtype].encode(values);
}

/** The values of stored bytes, exact. */
export function decode(dtype: StorageType, bytes: Uint8Array): Float32Array<ArrayBuffer> {
  return STORAGE[dtype].decode(bytes);
}
