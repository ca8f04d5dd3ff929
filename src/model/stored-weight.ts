import { bytesOf, decode, isStorage, type WeightType } from "../dtype.js";
import { sizeOf } from "../tensor.js";

/** A weight where it is kept: a file, or values in memory. Rows are those of the first dimension. */
export interface StoredWeight {
  /** As `weightShapes(config)` has it, whatever order the file has. */
  readonly shape: readonly number[];
  /** What `read` gives. */
  readonly dtype: WeightType;
  /** The type to keep it in where the file's own is none that kernels take; its `dtype` where absent. */
  readonly keepAs?: WeightType;
  /** How many rows are read together: pieces are of a multiple of it, or end with the last row. */
  readonly rowsTogether: number;
  /**
   * Reads the bytes of `rows` rows from `first` on. Several pieces may be read at once.
   * @param into of exactly their size; it may lie in shared memory
   * @throws FormatError where the file is shorter than it was, or holds values that are not finite
   */
  read(first: number, rows: number, into: Uint8Array): Promise<void>;
}

/**
 * Bytes that are read at once: a few rows of a large matrix, so that no weight is ever held whole twice, and what was
 * read is still in the cache when it is checked.
 */
const PIECE_BYTES = 1 << 20;

/** Rows of a weight that come next, and the bytes that they take. */
export interface Piece {
  readonly first: number;
  readonly rows: number;
  readonly byteLength: number;
}

/** A weight cut into pieces of about `bytes`. */
export function* pieces({ shape, dtype, rowsTogether }: StoredWeight, bytes = PIECE_BYTES): Generator<Piece> {
  const [count = 1, ...rest] = shape;
  const rowBytes = bytesOf(dtype, [1, ...rest]);
  // Even, so that pieces of halves begin at whole words, as WebGPU wants them.
  const together = rowsTogether % 2 === 0 ? rowsTogether : 2 * rowsTogether;
  const most = together * Math.max(1, Math.floor(bytes / (rowBytes * together)));
  for (let first = 0; first < count; first += most) {
    const rows = Math.min(most, count - first);
    yield { first, rows, byteLength: rows * rowBytes };
  }
}

/** All values of a weight. */
export async function readValues(weight: StoredWeight): Promise<Float32Array<ArrayBuffer>> {
  const values = new Float32Array(sizeOf(weight.shape));
  const rowSize = sizeOf(weight.shape.slice(1));
  for await (const piece of decoded(weight)) values.set(piece.values, piece.first * rowSize);
  return values;
}

/** Rows of a weight and their values. */
export interface DecodedPiece extends Piece {
  readonly values: Float32Array<ArrayBuffer>;
}

/** The values of a weight, piece by piece. */
export async function* decoded(weight: StoredWeight): AsyncGenerator<DecodedPiece> {
  for (const piece of pieces(weight)) {
    const bytes = new Uint8Array(piece.byteLength);
    await weight.read(piece.first, piece.rows, bytes);
    yield { ...piece, values: decodePiece(weight.dtype, bytes) };
  }
}

/** The values of bytes that a weight's `read` gave; of f32 they stay where they are. */
export function decodePiece(dtype: WeightType, bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  if (isStorage(dtype)) return decode(dtype, bytes);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** A weight whose values are asked for as a whole, by whoever has them at hand. */
export function weightOfValues(shape: readonly number[], read: () => Promise<Float32Array>): StoredWeight {
  const [rows = 1] = shape;
  return {
    shape,
    dtype: "f32",
    rowsTogether: rows,
    async read(_first, _rows, into) {
      const values = await read();
      into.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    },
  };
}
