import { FormatError } from "../errors.js";
import type { Tokenizer } from "../tokenizer.js";
import { type ByteSource, readAll } from "./source.js";
import { BYTE_NAME, type SpmPiece, spmTokenizer } from "./spm-tokenizer.js";

/** A token of a llama2.c vocabulary. */
export interface Piece {
  readonly bytes: Uint8Array;
  /** Merges that make a token of higher score go first. */
  readonly score: number;
}

/** As run.c has them in its code. */
export const LLAMA2C_UNKNOWN = 0;
export const LLAMA2C_BOS = 1;
export const LLAMA2C_EOS = 2;
const SPECIAL_COUNT = 3;

/** Reads a tokenizer of llama2.c and closes the source. Throws as `readLlama2cPieces`. */
export async function readLlama2cTokenizer(source: ByteSource, vocabSize: number): Promise<Tokenizer> {
  return llama2cTokenizer(await readLlama2cPieces(source, vocabSize));
}

/**
 * Reads the tokens of llama2.c (i32 longest piece, then for each token f32 score, i32 length, bytes) and closes the
 * source. Throws FormatError unless the file holds exactly `vocabSize` tokens.
 */
export async function readLlama2cPieces(source: ByteSource, vocabSize: number): Promise<Piece[]> {
  const file = source.name;
  const bytes = await readAll(source);
  const view = new DataView(bytes.buffer);
  const pieces: Piece[] = [];
  let offset = 4;
  for (let id = 0; id < vocabSize; id++) {
    if (offset + 8 > bytes.length) throw new FormatError(file, `ends after ${id} of ${vocabSize} tokens`);
    const score = view.getFloat32(offset, true);
    const length = view.getInt32(offset + 4, true);
    offset += 8;
    if (length < 0 || offset + length > bytes.length) {
      throw new FormatError(
        file,
        `token ${id} claims ${length} bytes of the ${bytes.length - offset} that are left`,
      );
    }
    if (!Number.isFinite(score)) throw new FormatError(file, `token ${id} has a score of ${score}`);
    pieces.push({ score, bytes: bytes.subarray(offset, offset + length) });
    offset += length;
  }
  if (offset !== bytes.length) {
    throw new FormatError(file, `holds more than the ${vocabSize} tokens of the model's vocabulary`);
  }
  return pieces;
}

/**
 * The tokenizer of llama2.c's run.c: BPE in the order of scores, a space before the text, bytes for characters that
 * the vocabulary has not. Tokens 0 to 2 are `<unk>`, BOS and EOS.
 */
export function llama2cTokenizer(pieces: readonly Piece[]): Tokenizer {
  return spmTokenizer(spmPieces(pieces), {
    bosId: LLAMA2C_BOS,
    unknownId: LLAMA2C_UNKNOWN,
    prefixSpace: true,
  });
}

/** The pieces as SentencePiece has them, their bytes as text. */
export function spmPieces(pieces: readonly Piece[]): SpmPiece[] {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return pieces.map(({ bytes, score }, id) => {
    const text = decoder.decode(bytes);
    // BOS and EOS stand between line breaks in the file.
    if (id < SPECIAL_COUNT) return { text: text.trim(), score, kind: "special" };
    return { text, score, kind: BYTE_NAME.test(text) ? "byte" : "normal" };
  });
}
