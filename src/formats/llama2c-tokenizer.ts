import { FormatError } from "../errors.js";
import { decodeIds, expectId, type Tokenizer } from "../tokenizer.js";
import { type ByteSource, readAll } from "./source.js";

/** A token of a llama2.c vocabulary. */
export interface Piece {
  readonly bytes: Uint8Array;
  /** Merges that make a token of higher score go first. */
  readonly score: number;
}

/** As run.c has them in its code. */
export const LLAMA2C_BOS = 1;
export const LLAMA2C_EOS = 2;
const SPECIAL_COUNT = 3;

/**
 * Reads a tokenizer of llama2.c (i32 longest piece, then for each token f32 score, i32 length, bytes) and closes
 * the source. Throws FormatError unless the file holds exactly `vocabSize` tokens.
 */
export async function readLlama2cTokenizer(source: ByteSource, vocabSize: number): Promise<Tokenizer> {
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
  return llama2cTokenizer(pieces);
}

/**
 * The tokenizer of llama2.c's run.c: BPE in the order of scores, a space before the text, bytes for characters that
 * the vocabulary has not. Tokens 0 to 2 are `<unk>`, BOS and EOS.
 */
export function llama2cTokenizer(pieces: readonly Piece[]): Tokenizer {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const ids = new Map<string, number>();
  const byteIds = new Map<number, number>();
  const tokenBytes = pieces.map(({ bytes }, id) => {
    if (id < SPECIAL_COUNT) return new Uint8Array(0);
    const text = decoder.decode(bytes);
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1];
    // A byte's token is not its name: "<0x41>" in a text is six characters.
    if (byte !== undefined) {
      const value = Number.parseInt(byte, 16);
      if (!byteIds.has(value)) byteIds.set(value, id);
      return Uint8Array.of(value);
    }
    if (!ids.has(text)) ids.set(text, id);
    return bytes;
  });

  const tokenizer: Tokenizer = {
    vocabSize: pieces.length,
    bosId: LLAMA2C_BOS,
    prefixSpace: true,
    encode(text) {
      if (text === "") return [];
      const symbols: string[] = [];
      const start: number[] = [];
      const push = (symbol: string, id: number) => {
        symbols.push(symbol);
        start.push(id);
      };
      // Lone surrogates are no text; they become U+FFFD as in every UTF-8 encoder.
      for (const character of ` ${decoder.decode(new TextEncoder().encode(text))}`) {
        const id = ids.get(character);
        if (id !== undefined) push(character, id);
        else for (const byte of new TextEncoder().encode(character)) push("", byteIds.get(byte) ?? 0);
      }
      return mergeByScore(symbols, start, (pair) => {
        const id = ids.get(pair);
        return id === undefined ? undefined : { id, score: pieces[id]?.score ?? 0 };
      });
    },
    decode: (list) => decodeIds(tokenizer, list),
    bytes: (id) => tokenBytes[expectId(id, pieces.length)] as Uint8Array,
    tokenId(name) {
      // BOS and EOS stand between line breaks in the file.
      const id = pieces.findIndex(({ bytes }) => decoder.decode(bytes).trim() === name);
      return id < 0 ? undefined : id;
    },
  };
  return tokenizer;
}

interface Candidate {
  readonly score: number;
  readonly left: number;
  readonly right: number;
  readonly text: string;
  readonly id: number;
}

/**
 * Joins neighbours, the pair whose token has the highest score first and the leftmost of equals, until none is
 * left. A byte (empty symbol) never joins. Same result as run.c's search over all pairs each time, in n log n.
 */
function mergeByScore(
  symbols: string[],
  ids: number[],
  lookup: (pair: string) => { id: number; score: number } | undefined,
): number[] {
  const next = symbols.map((_, i) => i + 1);
  const previous = symbols.map((_, i) => i - 1);
  const heap: Candidate[] = [];
  const propose = (left: number, right: number) => {
    const [a, b] = [symbols[left], symbols[right]];
    if (!a || !b) return;
    const found = lookup(a + b);
    if (found) pushHeap(heap, { ...found, left, right, text: a + b });
  };
  for (let i = 0; i + 1 < symbols.length; i++) propose(i, i + 1);

  for (let best = popHeap(heap); best; best = popHeap(heap)) {
    const { left, right, text, id } = best;
    // Stale where either side was joined to something else since.
    if (ids[left] === -1 || next[left] !== right || `${symbols[left]}${symbols[right]}` !== text) continue;
    symbols[left] = text;
    ids[left] = id;
    ids[right] = -1;
    const after = next[right] as number;
    next[left] = after;
    if (after < symbols.length) previous[after] = left;
    propose(previous[left] as number, left);
    propose(left, after);
  }
  return ids.filter((id) => id !== -1);
}

function isBefore(a: Candidate, b: Candidate): boolean {
  return a.score !== b.score ? a.score > b.score : a.left < b.left;
}

function pushHeap(heap: Candidate[], item: Candidate): void {
  let i = heap.push(item) - 1;
  for (let parent = (i - 1) >> 1; i > 0 && isBefore(item, heap[parent] as Candidate); parent = (i - 1) >> 1) {
    heap[i] = heap[parent] as Candidate;
    i = parent;
  }
  heap[i] = item;
}

function popHeap(heap: Candidate[]): Candidate | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (!top || !last || heap.length === 0) return top;
  let i = 0;
  for (;;) {
    let child = 2 * i + 1;
    if (child + 1 < heap.length && isBefore(heap[child + 1] as Candidate, heap[child] as Candidate)) child++;
    if (child >= heap.length || !isBefore(heap[child] as Candidate, last)) break;
    heap[i] = heap[child] as Candidate;
    i = child;
  }
  heap[i] = last;
  return top;
}
