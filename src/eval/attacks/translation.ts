import { answer } from "./answer.js";
import { type Attack, expectIntegers, firstOf } from "./attack.js";
import { rate } from "./rate.js";
import { type AttackedSequence, sequencesOf } from "./sequences.js";

export interface TranslationOptions {
  /** Most tokens that the model answers. */
  readonly maxTokens: number;
  /** Most conversations of a language. */
  readonly examples: number;
}

/** The language whose prompts are the ones without the attack. */
const FIRST = "en";

/**
 * Translated prompts (PAPER.md, "Attacks"): conversations that name their language, each language a level, English
 * first and the others as they come. The model answers greedily.
 */
export const translation: Attack<TranslationOptions> = {
  defaults: { maxTokens: 64, examples: 100 },

  check(options) {
    expectIntegers("translation", options, { maxTokens: 1, examples: 1 });
  },

  prepare(context, examples, options) {
    const { maxTokens } = options;
    const named = examples.filter(({ language }) => language !== undefined);
    const needs = "a language and a prompt that leaves room in the model's context";
    const usable = firstOf("translation", sequencesOf(context.flagged.model, named, 1, 1), Infinity, needs);
    const languageOf = ({ example }: AttackedSequence) => example.language as string;
    const languages = [...new Set(usable.map(languageOf))];
    const chosen = languages
      .sort((a, b) => Number(b === FIRST) - Number(a === FIRST))
      .map((language) => ({
        language,
        prompts: usable
          .filter((sequence) => languageOf(sequence) === language)
          .slice(0, options.examples)
          .map(({ prompt }) => prompt),
      }));
    const total = chosen.reduce((sum, { prompts }) => sum + prompts.length, 0);
    return {
      total,
      async run(onStep) {
        const levels = [];
        for (const { language, prompts } of chosen) {
          const flags: number[] = [];
          for (const prompt of prompts) {
            const { isFlagged } = await answer(context, prompt, { maxTokens });
            flags.push(isFlagged ? 1 : 0);
            onStep();
          }
          levels.push({ label: language, flag_rate: rate(flags), success: null, evaded: null });
        }
        return {
          attack: "translation",
          options: { ...options, seed: context.seed },
          examples: total,
          levels,
        };
      },
    };
  },
};
