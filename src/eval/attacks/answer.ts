import { type GenerateOptions, generate } from "../../flag/generate.js";
import type { AttackContext } from "./attack.js";

/** What the model has answered. */
export interface Answer {
  /** The new tokens without the flag. */
  readonly ids: readonly number[];
  /** Whether the flag was raised at one of the new positions. */
  readonly isFlagged: boolean;
}

/**
 * Lets the model go on after the ids, greedily unless told otherwise. The flag is read at the new positions alone,
 * the first of them that after the last id; the generation ends where it is raised, unless the policy says otherwise.
 */
export async function answer(
  { flagged, decision, signal }: AttackContext,
  ids: readonly number[],
  options: Pick<GenerateOptions, "maxTokens" | "temperature" | "topP" | "seed" | "policy">,
): Promise<Answer> {
  const steps = generate(flagged, ids, { ...options, decision, ...(signal && { signal }) });
  for await (const { done } of steps) {
    if (done) return { ids: done.ids.filter((id) => !flagged.isFlag(id)), isFlagged: done.flagged };
  }
  throw new Error("a generation ended without a result");
}
