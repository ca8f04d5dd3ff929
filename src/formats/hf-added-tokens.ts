import { FormatError } from "../errors.js";
import { isObject } from "./json.js";

type Json = Readonly<Record<string, unknown>>;

/** A token that a model has besides those of its tokenizer, or in the place of one. */
export interface NewToken {
  readonly id: number;
  readonly content: string;
}

type AddedToken = NewToken & Json;

/** What files of Hugging Face say of a token that is never made from ordinary text. */
const SPECIAL = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };

/**
 * `tokenizer.json` with special tokens added. Where the tokenizer has an id already, its token is renamed, and no
 * text becomes it any more but its new name.
 *
 * Readers do not take the ids of `added_tokens` as they stand: a token that the model's own vocabulary has keeps
 * that id, any other gets the next free one. So where matrices have rows between the last token and the new one, all
 * added tokens are written into the vocabulary too, which may have gaps.
 * Throws FormatError where another token has the name already.
 */
export function withAddedTokens(tokenizerJson: Json, tokens: readonly NewToken[], file: string): Json {
  let json = tokenizerJson;
  for (const { id, content } of tokens) {
    const { added, vocabulary } = tokensOf(json);
    const other = added.find((token) => token.content === content)?.id ?? vocabulary.get(content);
    if (other !== undefined && other !== id) {
      throw new FormatError(
        file,
        `has a token '${content}' already: ${other}, where the model has it as ${id}`,
      );
    }
    const place = added.find((token) => token.id === id);
    const others = added.filter((token) => token !== place);
    const piece = [...vocabulary].find(([, known]) => known === id)?.[0];
    json = {
      ...json,
      added_tokens: [...others, { ...place, id, content, ...SPECIAL }].sort((a, b) => a.id - b.id),
      ...(piece !== undefined && { model: renamePiece(json.model as Json, piece, content) }),
    };
  }
  const { added, vocabulary } = tokensOf(json);
  return areIdsKept(added, vocabulary) ? json : { ...json, model: withPieces(json.model as Json, added) };
}

function tokensOf(json: Json): { added: readonly AddedToken[]; vocabulary: Map<string, number> } {
  const { vocab } = json.model as Json;
  const pieces: [string, number][] = isUnigram(vocab)
    ? vocab.map(([piece], id) => [piece, id])
    : Object.entries(vocab as Record<string, number>);
  return { added: (json.added_tokens ?? []) as AddedToken[], vocabulary: new Map(pieces) };
}

/** Whether a vocabulary is a list of pieces with their scores, the ids being places in it. */
function isUnigram(vocab: unknown): vocab is [string, number][] {
  return Array.isArray(vocab);
}

function renamePiece({ vocab, merges, ...model }: Json, piece: string, content: string): Json {
  // A merge may be of the piece, or make it.
  const isOther = (merge: unknown) => {
    const parts = Array.isArray(merge) ? merge : String(merge).split(" ");
    return ![...parts, parts.join("")].includes(piece);
  };
  const rename = (name: string) => (name === piece ? content : name);
  return {
    ...model,
    vocab: isUnigram(vocab)
      ? vocab.map(([name, score]) => [rename(name), score])
      : Object.fromEntries(Object.entries(vocab as Json).map(([name, id]) => [rename(name), id])),
    ...(Array.isArray(merges) && { merges: merges.filter(isOther) }),
  };
}

/** Whether a reader comes to the ids that the tokens have (`AddedVocabulary.add_tokens` of Hugging Face's library). */
function areIdsKept(added: readonly AddedToken[], vocabulary: ReadonlyMap<string, number>): boolean {
  let last = -1;
  return added.every(({ id, content }) => {
    const given = vocabulary.get(content) ?? Math.max(last + 1, vocabulary.size);
    last = Math.max(last, given);
    return given === id;
  });
}

/** The model with the added tokens in its vocabulary, under their ids. */
function withPieces(model: Json, added: readonly AddedToken[]): Json {
  const { vocab } = model;
  if (!isUnigram(vocab)) {
    return {
      ...model,
      vocab: { ...(vocab as Json), ...Object.fromEntries(added.map(({ id, content }) => [content, id])) },
    };
  }
  // A list has no gaps: pieces without a token get a name that no text has, and are the least likely.
  const length = Math.max(vocab.length, ...added.map(({ id }) => id + 1));
  const worst = vocab.reduce((least, [, score]) => Math.min(least, score), 0);
  const names = new Map(added.map(({ id, content }) => [id, content]));
  const piece = (id: number) => vocab[id] ?? [names.get(id) ?? `<unused:${id}>`, worst];
  return { ...model, vocab: Array.from({ length }, (_, id) => piece(id)) };
}

/** `tokenizer_config.json` with the tokens among the special ones, in the fields that it has for them. */
export function withSpecialTokens(tokenizerConfig: Json, tokens: readonly NewToken[]): Json {
  const { added_tokens_decoder: decoder } = tokenizerConfig;
  const renamed = new Map<unknown, string>();
  const entries = tokens.map(({ id, content }) => {
    const place = isObject(decoder) && isObject(decoder[id]) ? decoder[id] : {};
    if (place.content !== undefined) renamed.set(place.content, content);
    return [String(id), { ...place, content, ...SPECIAL }] as const;
  });
  // transformers 4 calls the list of further special tokens so; 5 has a name of its own, and reads both.
  const field = Array.isArray(tokenizerConfig.extra_special_tokens)
    ? "extra_special_tokens"
    : "additional_special_tokens";
  return {
    ...tokenizerConfig,
    ...(isObject(decoder) && { added_tokens_decoder: { ...decoder, ...Object.fromEntries(entries) } }),
    [field]: withNames(tokenizerConfig[field], renamed, tokens),
  };
}

/** A list of special tokens, by name or as objects, with the tokens in it. */
function withNames(
  list: unknown,
  renamed: ReadonlyMap<unknown, string>,
  tokens: readonly NewToken[],
): unknown[] {
  const known = Array.isArray(list) ? list : [];
  const nameOf = (item: unknown) => (isObject(item) ? item.content : item);
  const kept = known.map((item) => renamed.get(nameOf(item)) ?? item);
  const missing = tokens.map(({ content }) => content).filter((name) => !kept.map(nameOf).includes(name));
  return [...kept, ...missing];
}
