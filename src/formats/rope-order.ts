/**
 * Rows of q and k lie in one of two orders: interleaved, where rotary positions turn rows 2i and 2i + 1 of a head, and
 * half-split, where they turn i and i + headDim / 2. Ours are half-split.
 */

/**
 * Moves rows from interleaved order to half-split order.
 * @param bytes rows of `rowBytes`, whole heads of them
 */
export function halfSplit(bytes: Uint8Array, headDim: number, rowBytes: number): Uint8Array<ArrayBuffer> {
  return moved(bytes, headDim, rowBytes, (inHead) => (inHead >> 1) + (inHead % 2) * (headDim / 2));
}

/** The reverse. */
export function interleaved(bytes: Uint8Array, headDim: number, rowBytes: number): Uint8Array<ArrayBuffer> {
  const half = headDim / 2;
  return moved(bytes, headDim, rowBytes, (inHead) => 2 * (inHead % half) + Math.floor(inHead / half));
}

/** @param to where the row of a place in a head goes */
function moved(
  bytes: Uint8Array,
  headDim: number,
  rowBytes: number,
  to: (inHead: number) => number,
): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(bytes.length);
  for (let row = 0; row * rowBytes < bytes.length; row++) {
    const inHead = row % headDim;
    const target = row - inHead + to(inHead);
    result.set(bytes.subarray(row * rowBytes, (row + 1) * rowBytes), target * rowBytes);
  }
  return result;
}
