import { type GenerateOptions, type GenerateResult, generate, generateBatch } from "../../flag/generate.js";
import type { FlaggedModel } from "../../flag/vocab.js";
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
    if (done) return answerOf(flagged, done);
  }
  throw new Error("a generation ended without a result");
}

/**
 * Several answers to the same ids, drawn side by side: for each seed the one that `answer` draws, but for rounding.
 * In their order.
 */
export async function answers(
  { flagged, decision, signal }: AttackContext,
  ids: readonly number[],
  seeds: readonly number[],
  options: Pick<GenerateOptions, "maxTokens" | "temperature" | "topP">,
): Promise<Answer[]> {
  const prompts = seeds.map(() => ids);
  const steps = generateBatch(flagged, prompts, { ...options, seeds, decision, ...(signal && { signal }) });
  const found = new Map<number, Answer>();
  for await (const { index, done } of steps) if (done) found.set(index, answerOf(flagged, done));
  return seeds.map((_, i) => found.get(i) as Answer);
}

function answerOf(flagged: FlaggedModel, { ids, flagged: isFlagged }: GenerateResult): Answer {
  return { ids: ids.filter((id) => !flagged.isFlag(id)), isFlagged };
}
