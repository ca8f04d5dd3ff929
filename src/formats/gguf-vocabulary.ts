import { UnsupportedError } from "../errors.js";
import { bool, f32s, type GgufEntry, i32s, string, strings, u32 } from "./gguf-entry.js";
import { pretokenizerOf } from "./gguf-pretokenizers.js";
import type { Fields } from "./json.js";

/** What a file says of a token (`llama_token_type` in llama.h). */
export const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** A tokenizer as a file has it. */
export type GgufVocabulary = SpmVocabulary | BpeVocabulary;

interface Vocabulary {
  readonly tokens: readonly string[];
  /** A `TOKEN_TYPE` for each. */
  readonly types: ArrayLike<number>;
  readonly bosId: number | null;
  readonly unknownId: number | null;
  /** Whether BOS goes before a text. */
  readonly addBos: boolean;
  /** A Jinja template for conversations. */
  readonly chatTemplate: string | null;
}

/** SentencePiece's BPE, which `tokenizer.ggml.model` calls `llama`. A space is U+2581. */
export interface SpmVocabulary extends Vocabulary {
  readonly kind: "llama";
  /** One for each token. */
  readonly scores: ArrayLike<number>;
  /** Whether a space is put before a text. */
  readonly prefixSpace: boolean;
}

/** Byte-level BPE, bytes spelt as GPT-2 does. */
export interface BpeVocabulary extends Vocabulary {
  readonly kind: "gpt2";
  /** How a text is cut into words: see `pretokenizerOf`. */
  readonly pre: string;
  /** Two parts with a space between them, first ones first. */
  readonly merges: readonly string[];
}

/**
 * The vocabulary of a file's metadata, or null where it has none.
 * Throws FormatError for a missing or wrong field, UnsupportedError for a kind of tokenizer, or a way to cut a text
 * into words, that is not implemented.
 */
export function readGgufVocabulary(fields: Fields): GgufVocabulary | null {
  const kind = fields.string("tokenizer.ggml.model", "none");
  switch (kind) {
    case "none":
    case "no_vocab":
      return null;
    case "llama":
      return readSpm(fields);
    case "gpt2":
      return readBpe(fields);
    default:
      throw new UnsupportedError(`${fields.file}: 'tokenizer.ggml.model' of '${kind}'`);
  }
}

const CHAT_TEMPLATE = "tokenizer.chat_template";

/** Whether a token is one that no text becomes. */
export function isSpecialType(type: number | undefined): boolean {
  return type === TOKEN_TYPE.control || type === TOKEN_TYPE.unknown;
}

/** The names of the tokens that no text becomes. */
export function specialNames({ tokens, types }: GgufVocabulary): string[] {
  return tokens.filter((_, id) => isSpecialType(types[id]));
}

/** The tokens that a file names for a use, by the names that chat templates know them by. */
export function namedTokens(fields: Fields, { tokens }: GgufVocabulary): Record<string, string> {
  const uses = { bos: "bos", eos: "eos", unk: "unknown", pad: "padding" };
  const entries = Object.entries(uses).flatMap(([short, use]) => {
    const id = idOf(fields, `${use}_token_id`, tokens.length);
    return id === null ? [] : [[`${short}_token`, tokens[id]]];
  });
  return Object.fromEntries(entries);
}

/** @param addBos where the file does not say */
function readCommon(fields: Fields, addBos: boolean): Vocabulary {
  const tokens = stringsOf(fields, "tokens");
  const name = "tokenizer.ggml.token_type";
  const types = fields.get(name) ?? new Int32Array(tokens.length).fill(TOKEN_TYPE.normal);
  if (!(types instanceof Int32Array) || types.length !== tokens.length) {
    return fields.fail(name, `must be a list of ${tokens.length} i32, one for each token`);
  }
  const bosId = idOf(fields, "bos_token_id", tokens.length);
  return {
    tokens,
    types,
    bosId,
    unknownId: idOf(fields, "unknown_token_id", tokens.length),
    addBos: fields.boolean("tokenizer.ggml.add_bos_token", addBos) && bosId !== null,
    chatTemplate: fields.has(CHAT_TEMPLATE) ? fields.string(CHAT_TEMPLATE) : null,
  };
}

function stringsOf(fields: Fields, name: string): readonly string[] {
  const value = fields.get(`tokenizer.ggml.${name}`);
  return Array.isArray(value) ? value : fields.fail(`tokenizer.ggml.${name}`, "must be a list of strings");
}

/** A token's id, null where the file has none; what lies outside the vocabulary names none either. */
function idOf(fields: Fields, name: string, count: number): number | null {
  const field = `tokenizer.ggml.${name}`;
  if (!fields.has(field)) return null;
  const id = fields.integer(field, { least: 0, most: 2 ** 32 - 1 });
  return id < count ? id : null;
}

function readSpm(fields: Fields): SpmVocabulary {
  const common = readCommon(fields, true);
  const name = "tokenizer.ggml.scores";
  const scores = fields.get(name);
  const { length } = common.tokens;
  if (!(scores instanceof Float32Array) || scores.length !== length || !scores.every(Number.isFinite)) {
    return fields.fail(name, `must be a list of ${length} finite f32, one for each token`);
  }
  const prefixSpace = fields.boolean("tokenizer.ggml.add_space_prefix", true);
  return { ...common, kind: "llama", scores, prefixSpace };
}

function readBpe(fields: Fields): BpeVocabulary {
  const pre = fields.string("tokenizer.ggml.pre", "default");
  const cut = pretokenizerOf(pre);
  if (!cut) throw new UnsupportedError(`${fields.file}: 'tokenizer.ggml.pre' of '${pre}'`);
  const merges = stringsOf(fields, "merges");
  const odd = merges.find((merge) => !/^[^ ]+ [^ ]+$/.test(merge));
  if (odd !== undefined) fields.fail("tokenizer.ggml.merges", `has '${odd}', expected two parts`);
  return { ...readCommon(fields, cut.addBos), kind: "gpt2", pre, merges };
}

/**
 * The metadata that says it, for a model with so many rows in its embedding: llama.cpp wants a token for each. What
 * the vocabulary lacks is filled up with unused tokens; what it has more is left out.
 */
export function vocabularyEntries(vocabulary: GgufVocabulary, rows: number): Map<string, GgufEntry> {
  const { kind, bosId, unknownId, addBos } = vocabulary;
  const list = <Value>(of: (id: number) => Value | undefined, unused: (id: number) => Value) =>
    Array.from({ length: rows }, (_, id) => of(id) ?? unused(id));
  const entries = new Map<string, GgufEntry>([
    ["model", string(kind)],
    ["pre", string(kind === "llama" ? "default" : vocabulary.pre)],
    ["tokens", strings(list((id) => vocabulary.tokens[id], unusedName))],
    [
      "token_type",
      i32s(
        list(
          (id) => vocabulary.types[id],
          () => TOKEN_TYPE.unused,
        ),
      ),
    ],
  ]);
  if (kind === "llama") {
    entries.set(
      "scores",
      f32s(
        list(
          (id) => vocabulary.scores[id],
          () => UNUSED_SCORE,
        ),
      ),
    );
    entries.set("add_space_prefix", bool(vocabulary.prefixSpace));
  } else {
    entries.set("merges", strings(vocabulary.merges));
  }
  if (bosId !== null && bosId < rows) entries.set("bos_token_id", u32(bosId));
  if (unknownId !== null && unknownId < rows) entries.set("unknown_token_id", u32(unknownId));
  entries.set("add_bos_token", bool(addBos));
  const named = new Map([...entries].map(([name, entry]) => [`tokenizer.ggml.${name}`, entry]));
  if (vocabulary.chatTemplate !== null) named.set(CHAT_TEMPLATE, string(vocabulary.chatTemplate));
  return named;
}

/** What llama.cpp's converter calls the rows between a tokenizer's tokens and the end of the embedding. */
function unusedName(id: number): string {
  return `[PAD${id}]`;
}

/** As llama.cpp's converter has it: below those of all merges. */
const UNUSED_SCORE = -10000;
