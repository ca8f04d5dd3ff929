import { FormatError } from "../errors.js";
import type { ChatTemplate, Tokenizer } from "../tokenizer.js";
import { pretokenizerOf } from "./gguf-pretokenizers.js";
import {
  type BpeVocabulary,
  type GgufVocabulary,
  isSpecialType,
  type SpmVocabulary,
  TOKEN_TYPE,
} from "./gguf-vocabulary.js";
import { BYTE_NAME, type SpmPiece, spmTokenizer } from "./spm-tokenizer.js";

/**
 * The tokenizer of a vocabulary.
 * @param file what messages name
 * @throws FormatError where tokens or merges are malformed
 */
export function ggufTokenizer(
  vocabulary: GgufVocabulary,
  file: string,
  chat?: ChatTemplate,
): Tokenizer | Promise<Tokenizer> {
  return vocabulary.kind === "llama" ? spmOf(vocabulary, file, chat) : bpeOf(vocabulary, file, chat);
}

function spmOf(
  { tokens, types, scores, ...rest }: SpmVocabulary,
  file: string,
  chat: ChatTemplate | undefined,
): Tokenizer {
  const pieces = tokens.map((token, id): SpmPiece => {
    const score = scores[id] as number;
    switch (types[id]) {
      case TOKEN_TYPE.control:
      case TOKEN_TYPE.unknown:
        return { text: token, score, kind: "special" };
      case TOKEN_TYPE.byte:
        if (BYTE_NAME.test(token)) return { text: token, score, kind: "byte" };
        throw new FormatError(file, `'tokenizer.ggml.tokens' has '${token}' for a byte, at ${id}`);
      case TOKEN_TYPE.userDefined:
        return { text: token, score, kind: "whole" };
      default:
        return { text: token.replaceAll("\u2581", " "), score, kind: "normal" };
    }
  });
  return spmTokenizer(pieces, {
    bosId: rest.addBos ? rest.bosId : null,
    unknownId: rest.unknownId ?? 0,
    prefixSpace: rest.prefixSpace,
    chat,
  });
}

/** Through the objects of `tokenizer.json` and `tokenizer_config.json`, for Hugging Face's library. */
async function bpeOf(
  { tokens, types, merges, pre, bosId, addBos }: BpeVocabulary,
  file: string,
  chat: ChatTemplate | undefined,
): Promise<Tokenizer> {
  const { patterns = [], ignoreMerges = false } = pretokenizerOf(pre) ?? {};
  const added = tokens.flatMap((content, id) => {
    const special = isSpecialType(types[id]);
    if (!special && types[id] !== TOKEN_TYPE.userDefined) return [];
    const strips = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    return [{ id, content, special, ...strips }];
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const cuts = patterns.map((Regex) => {
    return { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false };
  });
  const tokenizerJson = {
    version: "1.0",
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: "Sequence", pretokenizers: [...cuts, byteLevel] },
    post_processor: null,
    decoder: byteLevel,
    model: {
      ...{ type: "BPE", dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false },
      ...{ continuing_subword_prefix: null, end_of_word_suffix: null, ignore_merges: ignoreMerges },
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
  return huggingFaceTokenizer(tokenizerJson, tokenizerConfig, file, chat && (() => chat));
}
