/** When the flag counts as raised. */
export type Decision =
  /** The model's own draw was the flag. */
  | { readonly kind: "sampled" }
  /** The flag is the likeliest token: the paper's rule. */
  | { readonly kind: "argmax" }
  /** P(flag) at a position reaches the level. */
  | { readonly kind: "threshold"; readonly level: number }
  /** 1 - Π(1 - P) over the positions so far reaches the level. */
  | { readonly kind: "cumulative"; readonly level: number }
  /** The moving average decay · average + (1 - decay) · P, from 0, reaches the level. */
  | { readonly kind: "ema"; readonly decay: number; readonly level: number };

/** What a decision sees of a position. */
export interface FlagReading {
  /** P(flag) from the raw logits. */
  readonly probability: number;
  /** Whether the flag is the likeliest token. */
  readonly likeliest: boolean;
  /** Whether the flag was drawn; false where nothing is. */
  readonly sampled: boolean;
}

/**
 * Reads a decision as the command line writes it: `sampled`, `argmax`, `threshold=0.5`, `cumulative=0.9`,
 * `ema=0.9,0.5`.
 * @throws RangeError that names the text
 */
export function parseDecision(text: string): Decision {
  const at = text.indexOf("=");
  const [kind, value] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
  if ((kind === "sampled" || kind === "argmax") && at < 0) return { kind };
  if (kind === "threshold" || kind === "cumulative") return { kind, level: level(text, value) };
  if (kind === "ema") {
    const [decay = "", ...last] = value.split(",");
    return { kind, decay: level(text, decay), level: level(text, last.join()) };
  }
  throw new RangeError(
    `decision must be sampled, argmax, threshold=LEVEL, cumulative=LEVEL or ema=DECAY,LEVEL, got '${text}'`,
  );
}

function level(text: string, value: string): number {
  const number = value.trim() === "" ? Number.NaN : Number(value);
  if (!(number >= 0 && number <= 1)) throw new RangeError(`decision: '${text}' needs numbers from 0 to 1`);
  return number;
}

/** A decision as the command line writes it: what `parseDecision` reads, to the bit. */
export function formatDecision(decision: Decision): string {
  switch (decision.kind) {
    case "sampled":
    case "argmax":
      return decision.kind;
    case "threshold":
    case "cumulative":
      return `${decision.kind}=${decision.level}`;
    case "ema":
      return `ema=${decision.decay},${decision.level}`;
  }
}

/** Follows a decision along a response. */
export class DecisionTracker {
  #silence = 1;
  #average = 0;
  #highest = 0;

  constructor(readonly decision: Decision) {}

  /** 1 - Π(1 - P) so far. */
  get cumulative(): number {
    return 1 - this.#silence;
  }

  /**
   * The largest so far of what the decision compares with its level, so that it has been met exactly where this
   * reaches the level; the largest P(flag) where a decision has no level.
   */
  get highest(): number {
    return this.#highest;
  }

  /** Takes the next position in; whether the flag is raised there. */
  update({ probability, likeliest, sampled }: FlagReading): boolean {
    const { decision } = this;
    this.#silence *= 1 - probability;
    const value = this.#compared(probability);
    this.#highest = Math.max(this.#highest, value);
    switch (decision.kind) {
      case "sampled":
        return sampled;
      case "argmax":
        return likeliest;
      default:
        return value >= decision.level;
    }
  }

  /** What the decision compares with its level at this position. */
  #compared(probability: number): number {
    const { decision } = this;
    switch (decision.kind) {
      case "cumulative":
        return this.cumulative;
      case "ema":
        this.#average = decision.decay * this.#average + (1 - decision.decay) * probability;
        return this.#average;
      default:
        return probability;
    }
  }
}
