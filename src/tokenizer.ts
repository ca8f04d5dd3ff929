/** How text becomes ids. */
export interface EncodeOptions {
  /** Names of special tokens in the text become these tokens. By default they stay text. */
  readonly special?: boolean;
  /** A character that is left out once names have been looked for: a name stays text with it inside or before it. */
  readonly guard?: string;
}

/** One turn of a conversation. */
export interface Message {
  readonly role: string;
  readonly content: string;
}

/** How a conversation is laid out. */
export interface ChatOptions {
  /** End with what an answer of the assistant begins with; true by default. */
  readonly addGenerationPrompt?: boolean;
  /** Names of special tokens in the messages become these tokens. By default they stay text. */
  readonly special?: boolean;
  /** What the template is told besides: `{ enable_thinking: false }`. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** The time for templates that tell the model the date. */
  readonly now?: Date;
  /** End with the last message's content, white space behind it and the markup that closes it left out. */
  readonly open?: boolean;
}

/** The layout of conversations that a model was trained on. */
export interface ChatTemplate {
  /**
   * The text of a conversation, to be encoded with its special tokens. Where names of such tokens in the messages are
   * to stay text, `guard` stands in them.
   * @throws FormatError where the template refuses the messages, UnsupportedError for what it asks of its engine
   */
  render(
    messages: readonly Message[],
    options?: ChatOptions,
  ): { readonly text: string; readonly guard: string };
}

/** Text to token ids and back. */
export interface Tokenizer {
  readonly vocabSize: number;
  /** The id that callers put before a text, or null where the model wants none. */
  readonly bosId: number | null;
  /** Whether `encode` puts a space before the text, which `decode` takes away again after BOS. */
  readonly prefixSpace: boolean;
  /** The model's layout of conversations, where it has one. */
  readonly chat?: ChatTemplate;
  /** The ids of a text, without BOS. */
  encode(text: string, options?: EncodeOptions): number[];
  /** The text of the ids; special tokens have none. Throws RangeError for an id outside the vocabulary. */
  decode(ids: readonly number[]): string;
  /** The bytes that a token stands for, none for a special token. Throws RangeError as `decode`. */
  bytes(id: number): Uint8Array;
  /** The id of a token by its name, special ones included, or undefined where there is none. */
  tokenId(name: string): number | undefined;
}

/**
 * The ids of a conversation as the model's template lays it out. The template's markup becomes special tokens, what
 * the messages say does not, unless `special` asks for it.
 * @throws RangeError for a tokenizer without a template, and as `ChatTemplate.render`
 */
export function applyChat(
  tokenizer: Tokenizer,
  messages: readonly Message[],
  options: ChatOptions = {},
): number[] {
  const { chat } = tokenizer;
  if (!chat) throw new RangeError("the model has no chat template");
  const { text, guard } = chat.render(messages, options);
  return tokenizer.encode(text, { special: true, guard });
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

/** A piece of text, or a special token by its name. */
export type TextPart = { readonly text: string } | { readonly name: string };

/**
 * Cuts a text at names of special tokens, at the longest where several begin. The guard is left out of what remains.
 * @param names matches any of them
 */
export function partsOf(text: string, names: RegExp | null, { special, guard }: EncodeOptions): TextPart[] {
  const without = (part: string) => (guard === undefined ? part : part.replaceAll(guard, ""));
  if (!special || names === null) return [{ text: without(text) }];
  const parts: TextPart[] = [];
  const unguarded = guard === undefined ? names : new RegExp(`(?<!${guard})(?:${names.source})`, names.flags);
  let from = 0;
  for (const match of text.matchAll(unguarded)) {
    if (match.index > from) parts.push({ text: without(text.slice(from, match.index)) });
    parts.push({ name: match[0] });
    from = match.index + match[0].length;
  }
  if (from < text.length) parts.push({ text: without(text.slice(from)) });
  return parts;
}

/** A pattern for any of the names, the longest first; null where there is none. */
export function namePattern(names: Iterable<string>): RegExp | null {
  const sorted = [...names].filter((name) => name !== "").sort((a, b) => b.length - a.length);
  if (sorted.length === 0) return null;
  return new RegExp(sorted.map((name) => name.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&")).join("|"), "gu");
}

/** The ids that `byteTokenizer` gives its special tokens, after the 256 bytes. */
export const BYTE_SPECIALS = { bos: 256, eos: 257 } as const;

/** A token for each byte of UTF-8 (its id is its value), then `<bos>` and `<eos>`. It needs no file. */
export function byteTokenizer(): Tokenizer {
  const vocabSize = 258;
  const idOf = (name: string) => ({ "<bos>": BYTE_SPECIALS.bos, "<eos>": BYTE_SPECIALS.eos })[name];
  const names = /<bos>|<eos>/g;
  const tokenizer: Tokenizer = {
    vocabSize,
    bosId: BYTE_SPECIALS.bos,
    prefixSpace: false,
    encode: (text, options = {}) =>
      partsOf(text, names, options).flatMap((part) =>
        "text" in part ? Array.from(new TextEncoder().encode(part.text)) : (idOf(part.name) ?? []),
      ),
    decode: (ids) => decodeIds(tokenizer, ids),
    bytes: (id) => (expectId(id, vocabSize) < 256 ? Uint8Array.of(id) : new Uint8Array(0)),
    tokenId: idOf,
  };
  return tokenizer;
}
