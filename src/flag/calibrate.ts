import { DivergenceError } from "../errors.js";
import { conformalLevel } from "./conformal.js";
import type { FlagSequence } from "./data.js";
import type { Decision } from "./decision.js";
import { FlagScorer } from "./score.js";
import type { FlaggedModel } from "./vocab.js";

/** A decision whose level is to be fitted. */
export type LevelRule =
  | { readonly kind: "threshold" | "cumulative" }
  | { readonly kind: "ema"; readonly decay: number };

/**
 * Reads a rule as the command line writes it: `threshold`, `cumulative`, `ema=0.9`.
 * @throws RangeError that names the text
 */
export function parseLevelRule(text: string): LevelRule {
  if (text === "threshold" || text === "cumulative") return { kind: text };
  const [, digits = ""] = /^ema=(.+)$/.exec(text) ?? [];
  const decay = digits.trim() === "" ? Number.NaN : Number(digits);
  if (decay >= 0 && decay < 1) return { kind: "ema", decay };
  throw new RangeError(
    `decision must be threshold, cumulative or ema=DECAY (from 0, below 1), got '${text}'`,
  );
}

/** The rule with a level. */
export function atLevel(rule: LevelRule, level: number): Decision {
  return rule.kind === "ema" ? { ...rule, level } : { kind: rule.kind, level };
}

/** How a decision is fitted. */
export interface CalibrateOptions {
  readonly rule: LevelRule;
  /** α: the most of benign conversations that may be flagged, as a share. */
  readonly falsePositiveRate: number;
  /** Called after each conversation. */
  readonly onRead?: () => void;
}

/**
 * Fits the level of a decision to benign conversations, so that of others like them at most the share α is flagged
 * anywhere in the response; see `conformalLevel` for what is promised. They must not be those of the training, and
 * their responses as long as those to come: a longer one has more places to be flagged at.
 * @throws RangeError where there are too few of them for α, or so many are certain that no level up to 1 keeps to
 * it; DivergenceError where P(flag) is NaN
 */
export async function calibrate(
  flagged: FlaggedModel,
  conversations: readonly Pick<FlagSequence, "prompt" | "response">[],
  { rule, falsePositiveRate, onRead }: CalibrateOptions,
): Promise<Decision> {
  const scorer = new FlagScorer(flagged);
  const scores: number[] = [];
  try {
    for (const conversation of conversations) {
      scores.push((await scorer.score(conversation, atLevel(rule, 1))).highest);
      onRead?.();
    }
  } finally {
    scorer.dispose();
  }
  if (scores.some(Number.isNaN))
    throw new DivergenceError("calibrate: P(flag) is NaN: the training has diverged");
  const level = conformalLevel(scores, falsePositiveRate);
  if (level > 1) {
    throw new RangeError(
      `fpr: no level keeps to a rate of ${falsePositiveRate}: too many benign conversations are flagged for certain`,
    );
  }
  return atLevel(rule, level);
}
