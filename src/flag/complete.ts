import { decode } from "../generate/decode.js";
import type { Monitor } from "../generate/monitor.js";
import type { Random } from "../random.js";
import type { FlagSequence } from "./data.js";
import type { FlaggedModel } from "./vocab.js";

/** How responses are written where the data has none. */
export interface CompleteOptions {
  /** Most tokens of a response; 0 leaves all as they are. */
  readonly maxTokens: number;
  readonly random: Random;
  readonly signal?: AbortSignal | undefined;
  /** Called after every response, with their number so far and in all. */
  readonly onResponse?: ((done: number, total: number) => void) | undefined;
}

/**
 * Gives sequences without a response one that the reference draws at temperature 1: what the model says before
 * training is what it should go on to say. Flags are never drawn. A response stays empty where the model ends at
 * once, or the context has no room for a token and the flag.
 * @returns all sequences, and how many were given a response
 */
export async function completeSequences(
  flagged: FlaggedModel,
  sequences: readonly FlagSequence[],
  { maxTokens, random, signal, onResponse }: CompleteOptions,
): Promise<{ sequences: FlagSequence[]; completed: number }> {
  const { model, reference, flagIds } = flagged;
  const { contextLength, eosIds } = model.config;
  const noFlag: Monitor = {
    watches: [],
    banned: new Set(flagIds),
    observe: () => ({ verdict: { action: "continue" }, notes: {} }),
  };
  const isOpen = ({ prompt, response }: FlagSequence) =>
    maxTokens > 0 && prompt.length > 0 && response.length === 0;
  const total = sequences.filter(isOpen).length;
  let done = 0;
  let completed = 0;
  const whole: FlagSequence[] = [];
  for (const sequence of sequences) {
    // One place is kept for the flag.
    const room = contextLength - 1 - sequence.prompt.length;
    const response: number[] = [];
    if (isOpen(sequence) && room > 0) {
      const sampling = { temperature: 1, topK: 0, topP: 1 };
      const steps = decode(model, sequence.prompt, {
        sampling,
        random,
        maxTokens: Math.min(maxTokens, room),
        eosIds,
        overlay: reference,
        monitor: noFlag,
        signal,
      });
      for await (const step of steps) if (step.kind === "token") response.push(step.id);
    }
    if (isOpen(sequence)) onResponse?.(++done, total);
    if (response.length > 0) completed++;
    whole.push(response.length > 0 ? { ...sequence, response } : sequence);
  }
  return { sequences: whole, completed };
}
