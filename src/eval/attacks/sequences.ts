import { sequenceToRead } from "../../flag/conversation.js";
import type { FlagSequence } from "../../flag/data.js";
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
  model: Model,
  examples: readonly Example[],
  maxResponse: number,
  room: number,
): AttackedSequence[] {
  return examples
    .map((example) => ({ ...sequenceToRead(model, example, maxResponse), example }))
    .filter(({ prompt }) => prompt.length > 0 && prompt.length + room <= model.config.contextLength);
}
