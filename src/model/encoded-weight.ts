import { encode, type WeightType } from "../dtype.js";
import { decoded, pieces, type StoredWeight } from "./stored-weight.js";

/**
 * A weight as bytes of that type, piece by piece: as they are where it is stored so, else decoded and rounded to
 * nearest.
 * @throws RangeError where `dtype` cannot hold a value, or the rows are not whole blocks of it
 */
export async function* encodedWeight(
  weight: StoredWeight,
  dtype: WeightType,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  if (weight.dtype === dtype) {
    for (const { first, rows, byteLength } of pieces(weight)) {
      const bytes = new Uint8Array(byteLength);
      await weight.read(first, rows, bytes);
      yield bytes;
    }
    return;
  }
  for await (const { values } of decoded(weight)) {
    yield dtype === "f32" ? new Uint8Array(values.buffer) : new Uint8Array(encode(dtype, values));
  }
}
