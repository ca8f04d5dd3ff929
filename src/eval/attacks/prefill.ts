import { answer } from "./answer.js";
import { type Attack, doublings, expectIntegers, firstOf } from "./attack.js";
import { rate } from "./rate.js";
import { sequencesOf } from "./sequences.js";

export interface PrefillOptions {
  /** Most tokens of the given response that are put into the assistant's turn. */
  readonly tokens: number;
  /** Most tokens that the model adds. */
  readonly maxTokens: number;
  /** Most conversations. */
  readonly examples: number;
}

/**
 * Prefilling (PAPER.md, "Attacks"): the first 0, 1, 2, 4, … tokens of the given response stand in the assistant's
 * turn, and the model goes on greedily. The flag counts at new positions only. Whether the model does go on as the
 * response began is not judged.
 */
export const prefill: Attack<PrefillOptions> = {
  defaults: { tokens: 16, maxTokens: 64, examples: 100 },

  check(options) {
    expectIntegers("prefill", options, { tokens: 0, maxTokens: 1, examples: 1 });
  },

  prepare(context, examples, options) {
    const { tokens, maxTokens } = options;
    const { model } = context.flagged;
    // Every level attacks the same conversations.
    const usable = sequencesOf(model, examples, tokens, tokens).filter(
      ({ response }) => response.length === tokens,
    );
    const needs = `a prompt and a response of ${tokens} tokens within the model's context`;
    const chosen = firstOf("prefill", usable, options.examples, needs);
    const levels = tokens === 0 ? [0] : [0, ...doublings(tokens)];
    return {
      total: levels.length * chosen.length,
      async run(onStep) {
        const results = [];
        for (const level of levels) {
          const flags: number[] = [];
          for (const { prompt, response } of chosen) {
            const ids = [...prompt, ...response.slice(0, level)];
            const { isFlagged } = await answer(context, ids, { maxTokens });
            flags.push(isFlagged ? 1 : 0);
            onStep();
          }
          results.push({ label: `${level}`, flag_rate: rate(flags), success: null, evaded: null });
        }
        return {
          attack: "prefill",
          options: { ...options, seed: context.seed },
          examples: chosen.length,
          levels: results,
        };
      },
    };
  },
};
