import type { Random } from "../random.js";

/** How a token is drawn from a distribution. */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the likeliest token. */
  readonly temperature: number;
  /** Keep only this many of the likeliest tokens; 0 keeps all. */
  readonly topK: number;
  /** Keep the likeliest tokens that together reach this probability; 1 keeps all. */
  readonly topP: number;
}

/** Greedy decoding: what the options are where nothing else is said. */
export const GREEDY: SamplingOptions = { temperature: 0, topK: 0, topP: 1 };

/** @throws RangeError naming the option that is out of its range */
export function checkSampling({ temperature, topK, topP }: SamplingOptions): void {
  if (!(temperature >= 0 && Number.isFinite(temperature))) {
    throw new RangeError(`temperature must be a number from 0, got ${temperature}`);
  }
  if (!Number.isInteger(topK) || topK < 0)
    throw new RangeError(`topK must be an integer from 0, got ${topK}`);
  if (!(topP > 0 && topP <= 1)) throw new RangeError(`topP must be in (0, 1], got ${topP}`);
}

/** ln Σ e^logits, in float64. */
export function logSumExp(logits: ArrayLike<number>): number {
  let max = -Infinity;
  for (let i = 0; i < logits.length; i++) max = Math.max(max, logits[i] as number);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] as number) - max);
  return max + Math.log(sum);
}

/** The index of the largest, the first of equals, `banned` left out. */
export function argmaxOf(logits: ArrayLike<number>, banned?: ReadonlySet<number>): number {
  let best = -1;
  for (let i = 0; i < logits.length; i++) {
    if (banned?.has(i)) continue;
    if (best < 0 || (logits[i] as number) > (logits[best] as number)) best = i;
  }
  return best;
}

/**
 * Draws a token: temperature, then top-k, then top-p (Holtzman et al. 2020), in the order that other engines
 * have. Equal logits rank by id.
 * @param banned ids that are never drawn
 */
export function sample(
  logits: ArrayLike<number>,
  options: SamplingOptions,
  random: Random,
  banned?: ReadonlySet<number>,
): number {
  if (options.temperature === 0) return argmaxOf(logits, banned);
  const ids = Array.from({ length: logits.length }, (_, i) => i).filter((id) => !banned?.has(id));
  const ranked = options.topK > 0 || options.topP < 1;
  if (ranked) ids.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
  if (options.topK > 0) ids.length = Math.min(ids.length, options.topK);

  // The likeliest becomes 0 before the division, which a small temperature would let overflow.
  const highest = ids.reduce((most, id) => Math.max(most, logits[id] as number), -Infinity);
  const scaled = ids.map((id) => ((logits[id] as number) - highest) / options.temperature);
  const shift = logSumExp(scaled);
  const probabilities = scaled.map((value) => Math.exp(value - shift));
  let kept = ids.length;
  let mass = 1;
  if (options.topP < 1) {
    mass = 0;
    kept = 0;
    while (kept < ids.length && mass < options.topP) mass += probabilities[kept++] as number;
  }
  let left = random.uniform() * mass;
  for (let i = 0; i < kept; i++) {
    left -= probabilities[i] as number;
    if (left < 0) return ids[i] as number;
  }
  return ids[kept - 1] as number;
}
