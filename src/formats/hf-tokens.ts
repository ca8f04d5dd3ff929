import { FormatError } from "../errors.js";
import { Fields, isObject } from "./json.js";

type Json = Readonly<Record<string, unknown>>;

/** A token that a `tokenizer.json` has besides those of its model, or says more about. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/** The list of `added_tokens`. Throws FormatError naming the field at fault. */
export function readAddedTokens(json: Json, file: string): AddedToken[] {
  const list = json.added_tokens ?? [];
  if (!Array.isArray(list)) throw new FormatError(file, "'added_tokens' must be a list");
  return list.map((item, i) => {
    if (!isObject(item)) throw new FormatError(file, `'added_tokens.${i}' must be an object`);
    const fields = new Fields(file, item, `added_tokens.${i}.`);
    return {
      id: fields.integer("id", { least: 0 }),
      content: fields.string("content"),
      special: fields.boolean("special", false),
    };
  });
}

/**
 * The model's own vocabulary: an object for BPE and WordPiece, pairs of piece and score for Unigram.
 * Throws FormatError naming the field at fault.
 */
export function readVocabulary(json: Json, file: string): Map<string, number> {
  const model = new Fields(file, json).object("model");
  if (!model) throw new FormatError(file, "'model' is missing");
  const vocab = model.get("vocab");
  if (!Array.isArray(vocab) && !isObject(vocab)) return model.fail("vocab", "must be an object or a list");
  const entries: [unknown, unknown][] = Array.isArray(vocab)
    ? vocab.map((item, id) => [Array.isArray(item) ? item[0] : undefined, id])
    : Object.entries(vocab);
  const result = new Map<string, number>();
  for (const [piece, id] of entries) {
    if (
      typeof piece !== "string" ||
      typeof id !== "number" ||
      !Number.isInteger(id) ||
      id < 0 ||
      id >= 2 ** 31
    ) {
      return model.fail(
        "vocab",
        `has an entry that is not a piece with an id: ${JSON.stringify([piece, id])}`,
      );
    }
    result.set(piece, id);
  }
  return result;
}
