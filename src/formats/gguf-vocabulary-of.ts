import { FormatError, UnsupportedError } from "../errors.js";
import { GPT2_PATTERN, pretokenizerNamed } from "./gguf-pretokenizers.js";
import {
  type BpeVocabulary,
  type GgufVocabulary,
  type SpmVocabulary,
  TOKEN_TYPE,
} from "./gguf-vocabulary.js";
import { readAddedTokens, readVocabulary } from "./hf-tokens.js";
import { isObject } from "./json.js";
import { LLAMA2C_BOS, LLAMA2C_UNKNOWN, type Piece, spmPieces } from "./llama2c-tokenizer.js";
import { BYTE_NAME } from "./spm-tokenizer.js";

type Json = Readonly<Record<string, unknown>>;

/** Below every merge: a token that no merge makes is not to be made by its score. */
const UNREACHABLE = -1e6;

/** The vocabulary of a llama2.c tokenizer. */
export function vocabularyOfLlama2c(pieces: readonly Piece[]): SpmVocabulary {
  const { control, byte, normal, userDefined: whole } = TOKEN_TYPE;
  const types = { special: control, byte, normal, whole };
  const spm = spmPieces(pieces);
  return {
    kind: "llama",
    tokens: spm.map(({ text, kind }) => (kind === "normal" ? text.replaceAll(" ", "\u2581") : text)),
    types: spm.map(({ kind }, id) => (id === LLAMA2C_UNKNOWN ? TOKEN_TYPE.unknown : types[kind])),
    scores: spm.map(({ score }) => score),
    bosId: LLAMA2C_BOS,
    unknownId: LLAMA2C_UNKNOWN,
    addBos: true,
    prefixSpace: true,
    chatTemplate: null,
  };
}

/**
 * The vocabulary of a `tokenizer.json`, whose model is a BPE: byte-level, or SentencePiece's with merges in the order
 * of its scores.
 * @param bosId what goes before a text, null for nothing
 * @param file what messages name
 * @throws FormatError where the file is malformed, UnsupportedError where llama.cpp would make other ids of a text
 */
export function vocabularyOfJson(
  json: Json,
  bosId: number | null,
  chatTemplate: string | null,
  file: string,
): GgufVocabulary {
  const model = json.model as Json;
  const type = model.type ?? ("merges" in model ? "BPE" : "Unigram");
  // llama.cpp's `llama` joins by scores, and does not look for the likeliest pieces as a Unigram model does.
  if (type !== "BPE") throw new UnsupportedError(`${file}: 'model.type' of '${String(type)}' in a GGUF file`);
  const common = { ...tokensOf(json, file), bosId, addBos: bosId !== null, chatTemplate };
  const merges = mergesOf(model, file);
  if (isByteLevel(json)) return byteLevel(json, common, merges, file);
  if (model.byte_fallback === true) return sentencePiece(json, common, merges, file);
  throw new UnsupportedError(`${file}: a BPE without bytes in a GGUF file`);
}

type Common = Omit<BpeVocabulary, "kind" | "pre" | "merges">;

/** All tokens by their ids; places between them hold unused ones. */
function tokensOf(json: Json, file: string) {
  const tokens: string[] = [];
  const types: number[] = [];
  const put = (id: number, token: string, type: number) => {
    while (tokens.length <= id) {
      tokens.push(`[PAD${tokens.length}]`);
      types.push(TOKEN_TYPE.unused);
    }
    tokens[id] = token;
    types[id] = type;
  };
  const isSpm = !isByteLevel(json);
  for (const [piece, id] of readVocabulary(json, file)) {
    put(id, piece, isSpm && BYTE_NAME.test(piece) ? TOKEN_TYPE.byte : TOKEN_TYPE.normal);
  }
  const { unk_token: unknown } = json.model as Json;
  for (const { id, content, special } of readAddedTokens(json, file)) {
    put(id, content, special ? TOKEN_TYPE.control : TOKEN_TYPE.userDefined);
  }
  const unknownId = typeof unknown === "string" ? tokens.indexOf(unknown) : -1;
  if (unknownId >= 0) types[unknownId] = TOKEN_TYPE.unknown;
  return { tokens, types, unknownId: unknownId < 0 ? null : unknownId };
}

function mergesOf({ merges = [] }: Json, file: string): [string, string][] {
  const fail = (): never => {
    throw new FormatError(file, "'model.merges' must be a list of pairs");
  };
  if (!Array.isArray(merges)) return fail();
  return merges.map((merge: unknown) => {
    const [left, right, ...rest] =
      typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    return typeof left === "string" && typeof right === "string" && rest.length === 0
      ? [left, right]
      : fail();
  });
}

/** The parts of a sequence, or the one that stands for itself. */
function partsOf(value: unknown, list: string): Json[] {
  if (!isObject(value)) return [];
  const parts = value.type === "Sequence" ? value[list] : [value];
  return Array.isArray(parts) ? parts.filter(isObject) : [];
}

function isByteLevel(json: Json): boolean {
  const cuts = partsOf(json.pre_tokenizer, "pretokenizers");
  return cuts.some(({ type }) => type === "ByteLevel");
}

function byteLevel(json: Json, common: Common, merges: [string, string][], file: string): BpeVocabulary {
  // llama.cpp normalises nothing; text is in NFC but for rare exceptions.
  for (const { type } of partsOf(json.normalizer, "normalizers")) {
    if (type !== "NFC")
      throw new UnsupportedError(`${file}: 'normalizer.type' of '${String(type)}' in a GGUF file`);
  }
  const patterns = partsOf(json.pre_tokenizer, "pretokenizers").flatMap((cut) => patternsOf(cut, file));
  const ignoresMerges = (json.model as Json).ignore_merges === true;
  // Where nothing is merged it does not matter what would not be.
  const pre = merges.length === 0 ? "gpt-2" : pretokenizerNamed(patterns, ignoresMerges);
  if (pre === undefined) {
    throw new UnsupportedError(
      `${file}: 'pre_tokenizer' cuts words by ${JSON.stringify(patterns)}, for which llama.cpp has no name that we know`,
    );
  }
  return { ...common, kind: "gpt2", pre, merges: merges.map((pair) => pair.join(" ")) };
}

/** The regular expressions that a pre-tokenizer cuts by. */
function patternsOf(cut: Json, file: string): string[] {
  switch (cut.type) {
    case "ByteLevel":
      if (cut.add_prefix_space === true) break;
      return cut.use_regex === false ? [] : [GPT2_PATTERN];
    case "Digits":
      return [cut.individual_digits === true ? "\\p{N}" : "\\p{N}+"];
    case "Split": {
      const pattern = isObject(cut.pattern) ? cut.pattern.Regex : undefined;
      // Everything that matches becomes a word, and with patterns that match everything what is between is nothing.
      const isWords = cut.behavior === "Isolated" || (cut.behavior === "Removed" && cut.invert === true);
      if (typeof pattern === "string" && isWords) return [pattern];
      break;
    }
  }
  throw new UnsupportedError(`${file}: 'pre_tokenizer' of ${JSON.stringify(cut)} in a GGUF file`);
}

function sentencePiece(json: Json, common: Common, merges: [string, string][], file: string): SpmVocabulary {
  const normalizers = partsOf(json.normalizer, "normalizers");
  for (const { type } of normalizers) {
    if (type !== "Prepend" && type !== "Replace") {
      throw new UnsupportedError(`${file}: 'normalizer.type' of '${String(type)}' in a GGUF file`);
    }
  }
  const cuts = partsOf(json.pre_tokenizer, "pretokenizers");
  const isPrepended = ({ type, prepend_scheme, add_prefix_space }: Json) =>
    type === "Metaspace" && add_prefix_space !== false && prepend_scheme !== "never";
  // The order of the merges is that of the scores, of which files like this have lost the values.
  const scores = new Map<string, number>();
  for (const [rank, pair] of merges.entries()) {
    const piece = pair.join("");
    if (!scores.has(piece)) scores.set(piece, -rank);
  }
  return {
    ...common,
    kind: "llama",
    scores: common.tokens.map((token) => scores.get(token) ?? UNREACHABLE),
    prefixSpace: normalizers.some(({ type }) => type === "Prepend") || cuts.some(isPrepended),
  };
}
