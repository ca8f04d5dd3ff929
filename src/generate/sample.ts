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

/** The index of the largest, the first of equals, `banned` left out. */
export function argmaxOf(logits: ArrayLike<number>, banned?: ReadonlySet<number>): number {
  let best = -1;
  for (let i = 0; i < logits.length; i++) {
    if (best >= 0 && !((logits[i] as number) > (logits[best] as number))) continue;
    if (!banned?.has(i)) best = i;
  }
  return best;
}

/**
 * Draws a token: temperature, then top-k, then top-p (Holtzman et al. 2020), in the order that other engines
 * have. Equal logits rank by id.
 * @param banned ids that are never drawn
 * @param first the largest logit's id, where it is known: looking for it again takes a hundredth of a token's time
 */
export function sample(
  logits: ArrayLike<number>,
  options: SamplingOptions,
  random: Random,
  banned?: ReadonlySet<number>,
  first?: number,
): number {
  const { temperature, topK, topP } = options;
  const likeliest = first === undefined || banned?.has(first) ? argmaxOf(logits, banned) : first;
  if (temperature === 0) return likeliest;
  // The likeliest becomes 0 before the division, which a small temperature would let overflow.
  const highest = logits[likeliest] as number;
  const weight = (id: number) =>
    banned?.has(id) ? 0 : Math.exp(((logits[id] as number) - highest) / temperature);

  // Only ids that may be kept are sorted: sorting all of 32000 takes longer than a small model's pass.
  let ids: number[];
  let total: number;
  if (topK > 0) {
    ids = ranked(logits, kthLargest(logits, topK, banned), banned).slice(0, topK);
    total = sumOf(ids.length, (i) => weight(ids[i] as number));
  } else {
    total = sumOf(logits.length, weight);
    if (topP === 1) return draw(logits.length, weight, total, random) ?? likeliest;
    // Tokens under an equal share of 1 - p are less than 1 - p together, so the others reach p.
    const least = ((1 - topP) / logits.length) * total;
    ids = ranked(logits, Math.min(highest, highest + temperature * Math.log(least)), banned);
  }
  const weights = ids.map(weight);
  let kept = 0;
  let mass = 0;
  while (kept < ids.length && (topP === 1 || mass < topP * total)) mass += weights[kept++] as number;
  return ids[draw(kept, (i) => weights[i] as number, mass, random) ?? 0] as number;
}

/** An index, each as likely as its share of the sum of all; undefined where rounding leaves none. */
function draw(count: number, weight: (i: number) => number, sum: number, random: Random): number | undefined {
  let left = random.uniform() * sum;
  for (let i = 0; i < count; i++) {
    left -= weight(i);
    if (left < 0) return i;
  }
  return undefined;
}

function sumOf(count: number, value: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += value(i);
  return sum;
}

/** Ids whose logit is `least` or more, the likeliest first. */
function ranked(logits: ArrayLike<number>, least: number, banned?: ReadonlySet<number>): number[] {
  const ids: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    if ((logits[id] as number) >= least && !banned?.has(id)) ids.push(id);
  }
  return ids.sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
}

/** The k-th largest logit, -Infinity where there are fewer. */
export function kthLargest(logits: ArrayLike<number>, k: number, banned?: ReadonlySet<number>): number {
  // The k largest so far as a heap whose first is the least of them.
  const heap = new Float64Array(Math.min(k, logits.length)).fill(-Infinity);
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id] as number;
    if (!(value > (heap[0] as number)) || banned?.has(id)) continue;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && (heap[child + 1] as number) < (heap[child] as number)) child++;
      if ((heap[child] as number) >= value) break;
      heap[at] = heap[child] as number;
      at = child;
    }
    heap[at] = value;
  }
  return heap[0] as number;
}
