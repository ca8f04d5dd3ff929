import { UnsupportedError } from "../errors.js";
import type { Tokenizer } from "../tokenizer.js";
import { pretokenizerOf } from "./gguf-pretokenizers.js";
import { TOKEN_TYPE } from "./gguf-special.js";
import type { Fields } from "./json.js";
import { BYTE_NAME, type SpmPiece, spmTokenizer } from "./spm-tokenizer.js";

/** A tokenizer as a file has it. */
export interface GgufVocabulary {
  readonly tokens: readonly string[];
  /** `TOKEN_TYPE` of each. */
  readonly types: ArrayLike<number>;
  readonly bosId: number | null;
  readonly addBos: boolean;
}

/**
 * The tokenizer of a file's metadata, or null where it has none.
 * Throws FormatError for a missing or wrong field, UnsupportedError for a kind of tokenizer, or a way to cut a text
 * into words, that is not implemented.
 */
export async function readGgufTokenizer(fields: Fields): Promise<Tokenizer | null> {
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

/** @param addBos where the file does not say */
function readVocabulary(fields: Fields, addBos: boolean): GgufVocabulary {
  const tokens = stringsOf(fields, "tokens");
  const types =
    fields.get("tokenizer.ggml.token_type") ?? new Int32Array(tokens.length).fill(TOKEN_TYPE.normal);
  if (!(types instanceof Int32Array) || types.length !== tokens.length) {
    return fields.fail(
      "tokenizer.ggml.token_type",
      `must be a list of ${tokens.length} i32, one for each token`,
    );
  }
  const bosId = idOf(fields, "bos_token_id", tokens.length);
  return {
    tokens,
    types,
    bosId,
    addBos: fields.boolean("tokenizer.ggml.add_bos_token", addBos) && bosId !== null,
  };
}

function stringsOf(fields: Fields, name: string): readonly string[] {
  const value = fields.get(`tokenizer.ggml.${name}`);
  const isList = Array.isArray(value) && value.every((item) => typeof item === "string");
  return isList ? value : fields.fail(`tokenizer.ggml.${name}`, "must be a list of strings");
}

/** A token's id, null where the file has none; what lies outside the vocabulary names none either. */
function idOf(fields: Fields, name: string, count: number): number | null {
  const field = `tokenizer.ggml.${name}`;
  if (!fields.has(field)) return null;
  const id = fields.integer(field, { least: 0, most: 2 ** 32 - 1 });
  return id < count ? id : null;
}

/** SentencePiece's, with a score for each token. */
function readSpm(fields: Fields): Tokenizer {
  const { tokens, types, bosId, addBos } = readVocabulary(fields, true);
  const scores = fields.get("tokenizer.ggml.scores");
  if (
    !(scores instanceof Float32Array) ||
    scores.length !== tokens.length ||
    !scores.every(Number.isFinite)
  ) {
    return fields.fail(
      "tokenizer.ggml.scores",
      `must be a list of ${tokens.length} finite f32, one for each token`,
    );
  }
  const pieces = tokens.map((token, id): SpmPiece => {
    const score = scores[id] as number;
    switch (types[id]) {
      case TOKEN_TYPE.control:
      case TOKEN_TYPE.unknown:
        return { text: token, score, kind: "special" };
      case TOKEN_TYPE.byte:
        if (!BYTE_NAME.test(token))
          fields.fail("tokenizer.ggml.tokens", `has '${token}' for a byte, at ${id}`);
        return { text: token, score, kind: "byte" };
      case TOKEN_TYPE.userDefined:
        return { text: token, score, kind: "whole" };
      default:
        // SentencePiece writes a space as U+2581.
        return { text: token.replaceAll("\u2581", " "), score, kind: "normal" };
    }
  });
  return spmTokenizer(pieces, {
    bosId: addBos ? bosId : null,
    unknownId: idOf(fields, "unknown_token_id", tokens.length) ?? 0,
    prefixSpace: fields.boolean("tokenizer.ggml.add_space_prefix", true),
  });
}

/** A byte-level BPE: the objects of `tokenizer.json` and `tokenizer_config.json` are made for Hugging Face's library. */
async function readBpe(fields: Fields): Promise<Tokenizer> {
  const pre = fields.string("tokenizer.ggml.pre", "default");
  const cut = pretokenizerOf(pre);
  if (!cut) throw new UnsupportedError(`${fields.file}: 'tokenizer.ggml.pre' of '${pre}'`);
  const { tokens, types, bosId, addBos } = readVocabulary(fields, cut.addBos);
  const merges = stringsOf(fields, "merges");
  const odd = merges.find((merge) => !/^[^ ]+ [^ ]+$/.test(merge));
  if (odd !== undefined) fields.fail("tokenizer.ggml.merges", `has '${odd}', expected two parts`);

  const isSpecial = (id: number) => types[id] === TOKEN_TYPE.control || types[id] === TOKEN_TYPE.unknown;
  const added = tokens.flatMap((content, id) => {
    if (!isSpecial(id) && types[id] !== TOKEN_TYPE.userDefined) return [];
    const strips = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    return [{ id, content, special: isSpecial(id), ...strips }];
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const tokenizerJson = {
    version: "1.0",
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        ...cut.patterns.map((Regex) => ({
          ...{ type: "Split", pattern: { Regex } },
          ...{ behavior: "Isolated", invert: false },
        })),
        byteLevel,
      ],
    },
    post_processor: null,
    decoder: byteLevel,
    model: {
      ...{ type: "BPE", dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false },
      ...{ continuing_subword_prefix: null, end_of_word_suffix: null, ignore_merges: cut.ignoreMerges },
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
  const tokenizerConfig = {
    add_bos_token: addBos,
    bos_token: bosId === null ? null : tokens[bosId],
    clean_up_tokenization_spaces: false,
  };
  // The library comes only with a model that needs it.
  const { huggingFaceTokenizer } = await import("./hf-tokenizer.js");
  return huggingFaceTokenizer(tokenizerJson, tokenizerConfig, fields.file);
}
