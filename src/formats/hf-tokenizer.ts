import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { FormatError, UnsupportedError } from "../errors.js";
import {
  type ChatTemplate,
  decodeIds,
  expectId,
  namePattern,
  partsOf,
  type Tokenizer,
} from "../tokenizer.js";
import { byteCharacters } from "./byte-level.js";
import { type AddedToken, readAddedTokens, readVocabulary } from "./hf-tokens.js";
import { isObject, messageOf } from "./json.js";

type Json = Record<string, unknown>;

/**
 * A tokenizer from the objects in `tokenizer.json` and `tokenizer_config.json` (`{}` where there is none).
 * `file` is what messages name. Throws FormatError where the first is malformed, UnsupportedError where its model
 * is neither BPE nor Unigram. `makeChat` gets the names of its special tokens.
 *
 * Encoding uses Hugging Face's library. Decoding goes by the bytes of each token, so that streaming is exact: text
 * comes out as the model wrote it, without the library's clean-up of spaces before punctuation.
 */
export function huggingFaceTokenizer(
  tokenizerJson: Json,
  tokenizerConfig: Json,
  file: string,
  makeChat?: (specials: readonly string[]) => ChatTemplate,
): Tokenizer {
  const added = readAddedTokens(tokenizerJson, file);
  const vocabulary = readVocabulary(tokenizerJson, file);
  const specials = added.filter((token) => token.special);
  const library = makeLibrary(withMarks(tokenizerJson, specials), tokenizerConfig, file);
  const names = namePattern(specials.map(({ content }) => content));

  const vocabSize =
    1 + [...vocabulary.values(), ...added.map((token) => token.id)].reduce((a, b) => Math.max(a, b), -1);
  const toBytes = pieceDecoder(tokenizerJson);
  const tokenBytes = new Map<number, Uint8Array>();
  for (const [piece, id] of vocabulary) tokenBytes.set(id, toBytes(piece));
  for (const { id, content, special } of added) {
    tokenBytes.set(id, new TextEncoder().encode(special ? "" : content));
  }

  const tokenizer: Tokenizer = {
    vocabSize,
    bosId: findBos(tokenizerJson, tokenizerConfig, added),
    prefixSpace: decodersOf(tokenizerJson).some(stripsPrefix),
    ...(makeChat && { chat: makeChat(specials.map(({ content }) => content)) }),
    encode(text, options = {}) {
      // Lone surrogates are no text; what marks special tokens is one.
      const clean = new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text));
      const marked = partsOf(clean, names, options).map((part) =>
        "text" in part ? part.text : `${MARK}${part.name}`,
      );
      const whole = marked.join("");
      return whole === "" ? [] : library.encode(whole, { add_special_tokens: false }).ids;
    },
    decode: (ids) => decodeIds(tokenizer, ids),
    // Ids between the tokens, which padded vocabularies have, stand for nothing.
    bytes: (id) => tokenBytes.get(expectId(id, vocabSize)) ?? new Uint8Array(0),
    tokenId: (name) => added.find(({ content }) => content === name)?.id ?? vocabulary.get(name),
  };
  return tokenizer;
}

/** Stands before the name of a special token that is meant as one: a lone surrogate, which no text has. */
const MARK = "\uD800";

/**
 * A copy in which no text can become a special token: its name has a mark before it, in the vocabulary too, and no
 * merge makes it. Nothing is added around the text either.
 */
function withMarks(json: Json, specials: readonly AddedToken[]): Json {
  const names = new Set(specials.map((token) => token.content));
  const rename = (piece: string) => (names.has(piece) ? `${MARK}${piece}` : piece);
  const { vocab, merges, ...model } = json.model as Json;
  const added = (json.added_tokens ?? []) as AddedToken[];
  return {
    ...json,
    normalizer: json.normalizer ?? null,
    pre_tokenizer: json.pre_tokenizer ?? null,
    decoder: json.decoder ?? null,
    post_processor: null,
    added_tokens: added.map((token) => ({ ...token, content: rename(token.content) })),
    model: {
      ...model,
      vocab: Array.isArray(vocab)
        ? vocab.map(([piece, ...rest]: [string, ...unknown[]]) => [rename(piece), ...rest])
        : Object.fromEntries(Object.entries(vocab as Json).map(([piece, id]) => [rename(piece), id])),
      // Characters without a token still need the unknown token.
      ...(typeof model.unk_token === "string" && { unk_token: rename(model.unk_token) }),
      ...(Array.isArray(merges) && { merges: merges.filter((merge) => !names.has(mergeResult(merge))) }),
    },
  };
}

function mergeResult(merge: unknown): string {
  return Array.isArray(merge) ? merge.join("") : String(merge).replace(" ", "");
}

function makeLibrary(json: Json, config: Json, file: string): LibraryTokenizer {
  const model = json.model as Json;
  // Files older than the field are BPE.
  const type = model.type ?? ("merges" in model ? "BPE" : "Unigram");
  if (type !== "BPE" && type !== "Unigram") throw new UnsupportedError(`${file}: 'model.type' of '${type}'`);
  try {
    return new LibraryTokenizer(json, { ...config, additional_special_tokens: [] });
  } catch (cause) {
    throw new FormatError(file, `does not load as a tokenizer: ${messageOf(cause)}`, { cause });
  }
}

/** The decoders in order, a sequence taken apart. */
function decodersOf(json: Json): Json[] {
  const decoder = json.decoder;
  if (!isObject(decoder)) return [];
  const parts = decoder.type === "Sequence" ? decoder.decoders : [decoder];
  return Array.isArray(parts) ? parts.filter(isObject) : [];
}

/** Whether a decoder takes the first space of a text away, which the encoder had put there. */
function stripsPrefix(decoder: Json): boolean {
  if (decoder.type === "Strip") return decoder.content === " " && Number(decoder.start) > 0;
  if (decoder.type !== "Metaspace") return false;
  return decoder.add_prefix_space !== false && decoder.prepend_scheme !== "never";
}

/** From a piece of the vocabulary to the bytes that it stands for. */
function pieceDecoder(json: Json): (piece: string) => Uint8Array {
  const decoders = decodersOf(json);
  const encoder = new TextEncoder();
  if (decoders.some((decoder) => decoder.type === "ByteLevel")) {
    const byteOf = new Map(byteCharacters().map((character, byte) => [character, byte]));
    return (piece) => {
      const bytes = Array.from(piece, (character) => byteOf.get(character));
      // The library drops such a piece's characters; they can only be meant literally.
      return bytes.every((byte) => byte !== undefined) ? Uint8Array.from(bytes) : encoder.encode(piece);
    };
  }
  const replacements = decoders.flatMap((decoder): [string, string][] => {
    if (decoder.type === "Metaspace") return [[String(decoder.replacement ?? "▁"), " "]];
    const pattern = isObject(decoder.pattern) ? decoder.pattern.String : undefined;
    const isReplace = decoder.type === "Replace" && typeof pattern === "string";
    return isReplace ? [[pattern, String(decoder.content)]] : [];
  });
  const hasBytes = decoders.some((decoder) => decoder.type === "ByteFallback");
  return (piece) => {
    const byte = hasBytes ? /^<0x([0-9A-Fa-f]{2})>$/.exec(piece)?.[1] : undefined;
    if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
    return encoder.encode(replacements.reduce((text, [from, to]) => text.replaceAll(from, to), piece));
  };
}

/** The token that Hugging Face puts before a text, if any: `add_bos_token` decides, else the post-processor. */
function findBos(json: Json, config: Json, added: readonly AddedToken[]): number | null {
  if (config.add_bos_token === false) return null;
  if (config.add_bos_token === true) {
    const token = config.bos_token;
    const content = isObject(token) ? token.content : token;
    return added.find((item) => item.content === content)?.id ?? null;
  }
  const post = json.post_processor;
  const parts = isObject(post) && post.type === "Sequence" ? post.processors : [post];
  for (const part of Array.isArray(parts) ? parts.filter(isObject) : []) {
    if (part.type !== "TemplateProcessing" || !Array.isArray(part.single)) continue;
    const [first] = part.single.filter(isObject);
    const special = first?.SpecialToken;
    if (isObject(special)) return added.find((item) => item.content === special.id)?.id ?? null;
  }
  return null;
}
