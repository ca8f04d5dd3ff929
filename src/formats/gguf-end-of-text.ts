import { type GgufEntry, u32 } from "./gguf-entry.js";
import type { Fields } from "./json.js";

/** The fields that name a token which ends a text, a turn, or a message. */
const END_FIELDS = ["eos_token_id", "eot_token_id", "eom_token_id"];

/**
 * Tokens that end a turn in the chats of common models. A file often names only the one that ends a text, so
 * llama.cpp goes by their names too, and so do we.
 */
const END_NAMES: ReadonlySet<unknown> = new Set([
  "<|eot_id|>",
  "<|eom_id|>",
  "<|im_end|>",
  "<|end|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "<|end_of_text|>",
]);

/** The ids that end a generation, in the order of the fields, then of the vocabulary. */
export function endOfTextIds(fields: Fields): number[] {
  const ids = END_FIELDS.map((field) => `tokenizer.ggml.${field}`)
    .filter((field) => fields.has(field))
    .map((field) => fields.integer(field, { least: 0, most: 2 ** 32 - 1 }));
  const tokens = fields.get("tokenizer.ggml.tokens");
  if (Array.isArray(tokens)) {
    for (const [id, token] of tokens.entries()) if (END_NAMES.has(token)) ids.push(id);
  }
  return [...new Set(ids)];
}

/** The fields that name these ids, the first ones where there are more than fields. */
export function endOfTextEntries(ids: readonly number[]): Map<string, GgufEntry> {
  const named = ids.slice(0, END_FIELDS.length);
  return new Map(named.map((id, i) => [`tokenizer.ggml.${END_FIELDS[i]}`, u32(id)]));
}
