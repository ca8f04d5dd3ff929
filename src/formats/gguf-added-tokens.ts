import { FormatError } from "../errors.js";
import { type GgufVocabulary, TOKEN_TYPE } from "./gguf-vocabulary.js";
import type { NewToken } from "./hf-added-tokens.js";

/** Below every merge: a token that no text is to become. */
const UNREACHABLE = -1e6;

/**
 * A vocabulary with special tokens added. Where it has an id already, its token is renamed, and merges with it go.
 * @param file what messages name
 * @throws FormatError where another token has the name already
 */
export function withVocabularyTokens(
  vocabulary: GgufVocabulary,
  added: readonly NewToken[],
  file: string,
): GgufVocabulary {
  const tokens = [...vocabulary.tokens];
  const types = Array.from(vocabulary.types);
  const scores = vocabulary.kind === "llama" ? Array.from(vocabulary.scores) : [];
  const renamed = new Set<string>();
  for (const { id, content } of added) {
    const other = tokens.indexOf(content);
    if (other >= 0 && other !== id) {
      throw new FormatError(
        file,
        `has a token '${content}' already: ${other}, where the model has it as ${id}`,
      );
    }
    // Between the last token and this one, rows that stand for nothing.
    while (tokens.length < id) {
      types.push(TOKEN_TYPE.unused);
      scores.push(UNREACHABLE);
      tokens.push(`[PAD${tokens.length}]`);
    }
    const old = tokens[id];
    if (old !== undefined && old !== content) renamed.add(old);
    tokens[id] = content;
    types[id] = TOKEN_TYPE.control;
    scores[id] = UNREACHABLE;
  }
  if (vocabulary.kind === "llama") return { ...vocabulary, tokens, types, scores };
  const isOther = (merge: string) =>
    ![...merge.split(" "), merge.replace(" ", "")].some((piece) => renamed.has(piece));
  return { ...vocabulary, tokens, types, merges: vocabulary.merges.filter(isOther) };
}
