/**
 * Numbers in [-0.5, 0.5) that follow from their position alone, so that every contender makes the same ones in any
 * language: the upper 24 bits of MurmurHash3's 32-bit finaliser (Appleby 2011) of the position and the stream.
 * @param stream any integer from 0: one for each tensor
 */
export function noise(length: number, stream: number): Float32Array {
  const values = new Float32Array(length);
  const start = Math.imul(stream + 1, 0x9e3779b9);
  for (let i = 0; i < length; i++) {
    let h = (start + i) | 0;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    values[i] = ((h ^ (h >>> 16)) >>> 8) / 2 ** 24 - 0.5;
  }
  return values;
}

/** Token ids below `vocabSize`, made of the same numbers. */
export function noiseIds(length: number, vocabSize: number, stream: number): Uint32Array {
  return Uint32Array.from(noise(length, stream), (x) => Math.floor((x + 0.5) * vocabSize));
}
