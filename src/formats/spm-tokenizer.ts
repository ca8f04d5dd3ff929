import {
  type ChatTemplate,
  decodeIds,
  expectId,
  namePattern,
  partsOf,
  type Tokenizer,
} from "../tokenizer.js";

/** A token of a SentencePiece vocabulary. */
export interface SpmPiece {
  /** A special one's name, that of a byte, or what the token stands for. */
  readonly text: string;
  /** Merges that make a token of higher score go first. */
  readonly score: number;
  /** `special`: no text becomes it, and it has none; `whole`: every occurrence of its text does, before all else. */
  readonly kind: "normal" | "special" | "byte" | "whole";
}

export interface SpmOptions {
  readonly bosId: number | null;
  /** What stands for bytes that have no token. */
  readonly unknownId: number;
  /** Whether a space is put before a text, and before what follows a `whole` or a special token. */
  readonly prefixSpace: boolean;
  /** The layout of conversations, where the model has one. */
  readonly chat?: ChatTemplate | undefined;
}

/** What tokens of bytes are called. */
export const BYTE_NAME = /^<0x([0-9A-Fa-f]{2})>$/;

/**
 * SentencePiece's BPE (Kudo and Richardson 2018) as llama.cpp (`llm_tokenizer_spm`) and llama2.c's run.c have it:
 * characters are joined in the order of the scores, and those that the vocabulary has not become bytes.
 */
export function spmTokenizer(pieces: readonly SpmPiece[], options: SpmOptions): Tokenizer {
  const { bosId, unknownId, prefixSpace } = options;
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const ids = new Map<string, number>();
  const byteIds = new Map<number, number>();
  const names = new Map<string, number>();
  const specialIds = new Map<string, number>();
  const addFirst = <Key>(map: Map<Key, number>, key: Key, id: number) => {
    if (!map.has(key)) map.set(key, id);
  };
  const tokenBytes = pieces.map(({ text, kind }, id) => {
    addFirst(names, text, id);
    if (kind === "special") {
      addFirst(specialIds, text, id);
      return new Uint8Array(0);
    }
    if (kind === "byte") {
      // A byte's token is not its name: "<0x41>" in a text is six characters.
      const value = Number.parseInt(BYTE_NAME.exec(text)?.[1] ?? "", 16);
      addFirst(byteIds, value, id);
      return Uint8Array.of(value);
    }
    addFirst(ids, text, id);
    return encoder.encode(text);
  });
  const special = namePattern(specialIds.keys());
  const whole = pieces.filter(({ kind, text }) => kind === "whole" && text !== "").map(({ text }) => text);

  const encodePart = (text: string): number[] => {
    const symbols: string[] = [];
    const start: number[] = [];
    const push = (symbol: string, id: number) => {
      symbols.push(symbol);
      start.push(id);
    };
    for (const character of text) {
      const id = ids.get(character);
      if (id !== undefined) push(character, id);
      else for (const byte of encoder.encode(character)) push("", byteIds.get(byte) ?? unknownId);
    }
    return mergeByScore(symbols, start, (pair) => {
      const id = ids.get(pair);
      return id === undefined ? undefined : { id, score: pieces[id]?.score ?? 0 };
    });
  };

  const encodeText = (text: string): number[] =>
    splitAt(text, whole).flatMap(({ text: part, isWhole }) =>
      isWhole ? [ids.get(part) ?? unknownId] : encodePart(`${prefixSpace ? " " : ""}${part}`),
    );

  const tokenizer: Tokenizer = {
    vocabSize: pieces.length,
    bosId,
    prefixSpace,
    ...(options.chat && { chat: options.chat }),
    encode(text, how = {}) {
      // Lone surrogates are no text; they become U+FFFD as in every UTF-8 encoder.
      const clean = decoder.decode(encoder.encode(text));
      return partsOf(clean, special, how).flatMap((part) =>
        "text" in part ? encodeText(part.text) : [specialIds.get(part.name) ?? unknownId],
      );
    },
    decode: (list) => decodeIds(tokenizer, list),
    bytes: (id) => tokenBytes[expectId(id, pieces.length)] as Uint8Array,
    tokenId: (name) => names.get(name),
  };
  return tokenizer;
}

interface Part {
  readonly text: string;
  readonly isWhole: boolean;
}

/** The text cut before and after each of the words, longer words first; empty parts are left out. */
function splitAt(text: string, words: readonly string[]): Part[] {
  let parts: Part[] = [{ text, isWhole: false }];
  for (const word of [...words].sort((a, b) => b.length - a.length)) {
    parts = parts.flatMap((part) => {
      if (part.isWhole || !part.text.includes(word)) return [part];
      return part.text
        .split(word)
        .flatMap((between, i) => [
          ...(i > 0 ? [{ text: word, isWhole: true }] : []),
          { text: between, isWhole: false },
        ]);
    });
  }
  return parts.filter((part) => part.text !== "");
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
