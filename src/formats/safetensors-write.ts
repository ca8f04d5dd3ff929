import { f32ToBf16, f32ToF16 } from "../half.js";
import { formatShape, sizeOf } from "../tensor.js";

/** A tensor to write. Its data may come later, so that a model is never in memory as a whole. */
export type TensorData =
  | {
      readonly dtype: "F32" | "F16" | "BF16";
      readonly shape: readonly number[];
      readonly data: Float32Array | (() => Promise<Float32Array>);
    }
  /** Bytes as the type has them, row-major, in pieces. */
  | {
      readonly dtype: "F32" | "F16" | "BF16";
      readonly shape: readonly number[];
      readonly pieces: () => AsyncIterable<Uint8Array<ArrayBuffer>>;
    }
  | { readonly dtype: "I64"; readonly shape: readonly number[]; readonly data: readonly number[] }
  | { readonly dtype: "U8"; readonly shape: readonly number[]; readonly data: Uint8Array };

type WrittenType = TensorData["dtype"];

const BYTES: Readonly<Record<WrittenType, number>> = { I64: 8, F32: 4, BF16: 2, F16: 2, U8: 1 };
/** The order in which the format's own writers lay types out, so that each tensor is aligned. */
const ORDER: readonly WrittenType[] = ["I64", "F32", "BF16", "F16", "U8"];

/**
 * The bytes of a safetensors file in chunks: header, then tensors by type and name as the reference library lays
 * them out. f32 is rounded to F16 and BF16 to nearest even.
 * Throws RangeError where data and shape disagree, and where a finite value is too large for the type.
 */
export async function* writeSafetensors(
  tensors: ReadonlyMap<string, TensorData>,
  metadata: Readonly<Record<string, string>> = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const entries = [...tensors].sort(([nameA, a], [nameB, b]) => {
    return ORDER.indexOf(a.dtype) - ORDER.indexOf(b.dtype) || (nameA < nameB ? -1 : 1);
  });

  const header = new Map<string, unknown>();
  if (Object.keys(metadata).length > 0) header.set("__metadata__", metadata);
  let offset = 0;
  for (const [name, { dtype, shape }] of entries) {
    if (name === "__metadata__") throw new RangeError("no tensor can be named '__metadata__'");
    const end = offset + tensorBytes({ dtype, shape });
    header.set(name, { dtype, shape, data_offsets: [offset, end] });
    offset = end;
  }
  yield encodeHeader(header);

  for (const [name, tensor] of entries) {
    if ("pieces" in tensor) {
      yield* counted(name, tensor.pieces(), tensorBytes(tensor));
      continue;
    }
    const data = typeof tensor.data === "function" ? await tensor.data() : tensor.data;
    if (data.length !== sizeOf(tensor.shape)) {
      throw new RangeError(
        `tensor '${name}': ${data.length} values for the shape ${formatShape(tensor.shape)}`,
      );
    }
    yield encodeTensor(name, tensor.dtype, data);
  }
}

/** Passes pieces on. Throws RangeError where they are not `expected` bytes in all: the header has promised them. */
async function* counted(
  name: string,
  pieces: AsyncIterable<Uint8Array<ArrayBuffer>>,
  expected: number,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let written = 0;
  for await (const piece of pieces) {
    written += piece.length;
    yield piece;
  }
  if (written !== expected)
    throw new RangeError(`tensor '${name}': ${written} bytes for ${expected} of its shape`);
}

/** Bytes of a tensor in a file. */
export function tensorBytes({ dtype, shape }: Pick<TensorData, "dtype" | "shape">): number {
  return sizeOf(shape) * BYTES[dtype];
}

/** Eight bytes of length, then JSON padded with spaces so that the data is aligned to 8. */
function encodeHeader(header: ReadonlyMap<string, unknown>): Uint8Array<ArrayBuffer> {
  // Not an object: one would put keys that look like integers first, and lose '__proto__'.
  const fields = [...header].map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}

function encodeTensor(
  name: string,
  dtype: WrittenType,
  data: Float32Array | Uint8Array | readonly number[],
): Uint8Array<ArrayBuffer> {
  if (dtype === "I64") return new Uint8Array(BigInt64Array.from(Array.from(data), BigInt).buffer);
  if (dtype === "U8") return new Uint8Array(data);
  const floats = new Float32Array(data);
  if (dtype === "F32") return new Uint8Array(floats.buffer);
  const halves = dtype === "F16" ? f32ToF16(floats) : f32ToBf16(floats);
  const infinite = dtype === "F16" ? 0x7c00 : 0x7f80;
  const overflow = halves.findIndex((half, i) => (half & 0x7fff) === infinite && Number.isFinite(floats[i]));
  if (overflow >= 0) {
    throw new RangeError(`tensor '${name}' holds ${floats[overflow]}, which is beyond the range of ${dtype}`);
  }
  return new Uint8Array(halves.buffer);
}
