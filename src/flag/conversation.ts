import type { Example } from "../formats/jsonl.js";
import type { Model } from "../model/model.js";
import { type FlagSequence, toSequence } from "./data.js";
import { type GenerateOptions, generate } from "./generate.js";
import type { FlaggedModel } from "./vocab.js";

/**
 * An example as ids that the flag is read along. No flag is put in, so that the whole context is the example's.
 * @param maxTokens most tokens of the response
 * @throws RangeError where the model has no tokenizer
 */
export function sequenceToRead(
  { tokenizer, config }: Model,
  example: Example,
  maxTokens: number,
): FlagSequence {
  if (!tokenizer) throw new RangeError("the model has no tokenizer to read examples with");
  const limits = { maxResponse: maxTokens, contextLength: config.contextLength + 1, minOffset: 0 };
  return toSequence(tokenizer, example, limits);
}

/** Whether the model can read a prompt: one token at least, and no more than its context holds. */
export function promptFits({ config }: Model, prompt: readonly number[]): boolean {
  return prompt.length > 0 && prompt.length <= config.contextLength;
}

/**
 * What the model answers greedily, `maxTokens` at most, the flag left out. Where the decision is met first, the flag
 * is put into its context, unless the policy says otherwise.
 */
export async function respond(
  flagged: FlaggedModel,
  prompt: readonly number[],
  options: Pick<GenerateOptions, "decision" | "policy"> & { readonly maxTokens: number },
): Promise<number[]> {
  // The flag takes none of the answer's places: else the last position would be that of unflagged answers alone.
  const maxTokens = options.maxTokens + 1;
  const response: number[] = [];
  for await (const { token } of generate(flagged, prompt, {
    policy: { kind: "annotate" },
    ...options,
    maxTokens,
  })) {
    if (token !== null && !flagged.isFlag(token)) response.push(token);
  }
  // The context has no place for a token that was generated after its last position.
  const room = flagged.model.config.contextLength - prompt.length;
  return response.slice(0, Math.min(options.maxTokens, room));
}
