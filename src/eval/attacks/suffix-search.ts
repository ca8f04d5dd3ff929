import { yieldToEventLoop } from "../../event-loop.js";
import { kthLargest } from "../../generate/sample.js";
import type { Random } from "../../random.js";
import type { SuffixLoss } from "./suffix-loss.js";

/** How a suffix is searched. */
export interface SuffixSearchOptions {
  readonly steps: number;
  /** Candidates a step. */
  readonly width: number;
  /** Tokens of a position that candidates draw from: those whose gradient promises most. */
  readonly topK: number;
}

/** Where a search stands. */
export interface SearchStep {
  /** Steps taken. */
  readonly step: number;
  /** The best suffix so far, and its loss. */
  readonly suffix: readonly number[];
  readonly loss: number;
}

/** Draws for every candidate that is wanted: one that the tokenizer would not make again is drawn anew. */
const MOST_DRAWS = 8;

/**
 * Greedy coordinate gradient (Zou et al. 2023, Algorithm 1): a step draws candidates that differ from the suffix in
 * one token, which the gradient of the one-hots promises to lower the loss, and goes on with the best of them, be it
 * worse than before. Where no candidate survives the tokenizer it stays.
 * @param allowed ids that a suffix may hold
 * @throws the signal's reason, between two steps
 */
export async function* searchSuffix(
  loss: SuffixLoss,
  allowed: readonly number[],
  { steps, width, topK }: SuffixSearchOptions,
  random: Random,
  signal?: AbortSignal,
): AsyncGenerator<SearchStep, void> {
  let suffix = loss.problem.start;
  let best = { suffix, loss: (await loss.evaluate([suffix]))[0] as number };
  yield { step: 0, ...best };
  for (let step = 1; step <= steps; step++) {
    await yieldToEventLoop();
    signal?.throwIfAborted();
    const gradient = await loss.gradient(suffix);
    const promising = promisingTokens(gradient, suffix.length, allowed, topK);
    const candidates = drawCandidates(suffix, promising, width, random, (ids) => loss.problem.survives(ids));
    if (candidates.length > 0) {
      const losses = await loss.evaluate(candidates);
      const least = losses.reduce((at, value, i) => (value < (losses[at] as number) ? i : at), 0);
      suffix = candidates[least] as readonly number[];
      if ((losses[least] as number) < best.loss) best = { suffix, loss: losses[least] as number };
    }
    yield { step, ...best };
  }
}

/** The `topK` allowed ids of least gradient at every position. */
function promisingTokens(
  gradient: Float32Array,
  length: number,
  allowed: readonly number[],
  topK: number,
): number[][] {
  const width = gradient.length / length;
  return Array.from({ length }, (_, position) => {
    const promise = (id: number) => -(gradient[position * width + id] as number);
    // Only what may be kept is sorted: sorting a vocabulary takes longer than a small model's pass.
    const least = kthLargest(allowed.map(promise), topK);
    return allowed
      .filter((id) => promise(id) >= least)
      .sort((a, b) => promise(b) - promise(a) || a - b)
      .slice(0, topK);
  });
}

/** Distinct suffixes, each with one token changed at a place and to a promising token that are both uniform. */
function drawCandidates(
  suffix: readonly number[],
  promising: readonly (readonly number[])[],
  width: number,
  random: Random,
  survives: (suffix: readonly number[]) => boolean,
): number[][] {
  const candidates: number[][] = [];
  const seen = new Set<string>();
  for (let draw = 0; draw < MOST_DRAWS * width && candidates.length < width; draw++) {
    const at = random.below(suffix.length);
    const tokens = promising[at] ?? [];
    const token = tokens[random.below(tokens.length)];
    const swap = `${at}:${token}`;
    if (token === undefined || token === suffix[at] || seen.has(swap)) continue;
    seen.add(swap);
    const candidate = suffix.map((id, i) => (i === at ? token : id));
    if (survives(candidate)) candidates.push(candidate);
  }
  return candidates;
}
