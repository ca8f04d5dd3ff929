import { type FlagSequence, toSequence } from "../../flag/data.js";
import type { Example } from "../../formats/jsonl.js";
import type { Model } from "../../model/model.js";

/** An example with its ids. */
export interface AttackedSequence extends FlagSequence {
  readonly example: Example;
}

/**
 * Ids of the examples whose prompt leaves `room` tokens of the model's context.
 * @param maxResponse most tokens of a given response
 * @throws RangeError where the model has no tokenizer
 */
export function sequencesOf(
  { tokenizer, config }: Model,
  examples: readonly Example[],
  maxResponse: number,
  room: number,
): AttackedSequence[] {
  if (!tokenizer) throw new RangeError("attacks: the model has no tokenizer to read examples with");
  // No flag is put in, so that its place is the response's.
  const limits = { maxResponse, contextLength: config.contextLength + 1, minOffset: 0 };
  return examples
    .map((example) => ({ ...toSequence(tokenizer, example, limits), example }))
    .filter(({ prompt }) => prompt.length > 0 && prompt.length + room <= config.contextLength);
}
