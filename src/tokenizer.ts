/** Text to token ids and back. */
export interface Tokenizer {
  readonly vocabSize: number;
  /** The id that callers put before a text, or null where the model wants none. */
  readonly bosId: number | null;
  /** Whether `encode` puts a space before the text, which `decode` takes away again after BOS. */
  readonly prefixSpace: boolean;
  /** The ids of plain text, without BOS. What looks like a special token in it stays text. */
  encode(text: string): number[];
  /** The text of the ids; special tokens have none. Throws RangeError for an id outside the vocabulary. */
  decode(ids: readonly number[]): string;
  /** The bytes that a token stands for, none for a special token. Throws RangeError as `decode`. */
  bytes(id: number): Uint8Array;
  /** The id of a token by its name, special ones included, or undefined where there is none. */
  tokenId(name: string): number | undefined;
}

/**
 * Decodes token by token, and gives out text only when its UTF-8 is complete: characters may be split over tokens.
 * What it gives out in all is `decode` of all ids.
 */
export class StreamDecoder {
  readonly #tokenizer: Tokenizer;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #previous: number | null;

  /** @param previous the id before the first that is pushed: BOS takes the space from the next token */
  constructor(tokenizer: Tokenizer, previous: number | null = null) {
    this.#tokenizer = tokenizer;
    this.#previous = previous;
  }

  /** The text that became complete with this token, often empty. Bytes that are no UTF-8 become U+FFFD. */
  push(id: number): string {
    let bytes = this.#tokenizer.bytes(id);
    const afterBos = this.#tokenizer.bosId !== null && this.#previous === this.#tokenizer.bosId;
    if (this.#tokenizer.prefixSpace && afterBos && bytes[0] === 0x20) bytes = bytes.subarray(1);
    this.#previous = id;
    return this.#decoder.decode(bytes, { stream: true });
  }

  /** What is left when no more tokens come: U+FFFD for an unfinished character, else nothing. */
  flush(): string {
    return this.#decoder.decode();
  }
}

/** `Tokenizer.decode` for every tokenizer that knows its tokens' bytes. */
export function decodeIds(tokenizer: Tokenizer, ids: readonly number[]): string {
  const decoder = new StreamDecoder(tokenizer);
  return ids.map((id) => decoder.push(id)).join("") + decoder.flush();
}

/** The id, or RangeError where it is not in a vocabulary of that size. */
export function expectId(id: number, vocabSize: number): number {
  if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
    throw new RangeError(`token id ${id} is outside the vocabulary of ${vocabSize}`);
  }
  return id;
}

/** The ids that `byteTokenizer` gives its special tokens, after the 256 bytes. */
export const BYTE_SPECIALS = { bos: 256, eos: 257 } as const;

/** A token for each byte of UTF-8 (its id is its value), then `<bos>` and `<eos>`. It needs no file. */
export function byteTokenizer(): Tokenizer {
  const vocabSize = 258;
  const tokenizer: Tokenizer = {
    vocabSize,
    bosId: BYTE_SPECIALS.bos,
    prefixSpace: false,
    encode: (text) => Array.from(new TextEncoder().encode(text)),
    decode: (ids) => decodeIds(tokenizer, ids),
    bytes: (id) => (expectId(id, vocabSize) < 256 ? Uint8Array.of(id) : new Uint8Array(0)),
    tokenId: (name) => ({ "<bos>": BYTE_SPECIALS.bos, "<eos>": BYTE_SPECIALS.eos })[name],
  };
  return tokenizer;
}
