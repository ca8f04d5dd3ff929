import { Random } from "../random.js";
import type { Estimate } from "./evaluation.js";
import { quantile } from "./metrics.js";

/** How uncertainty is estimated. */
export interface BootstrapOptions {
  /** How often the data is drawn anew. */
  readonly resamples: number;
  readonly seed: number;
}

/** Percentiles of an interval of 95 %. */
const LOW = 0.025;
const HIGH = 0.975;

/**
 * Percentile intervals by the bootstrap (Efron 1979) over several populations: seeds, positives, negatives, each
 * drawn anew from itself with replacement. They are crossed, not nested: every adapter has read the same examples,
 * so a resample draws the examples once for all adapters. Drawing them for each adapter apart would average their
 * chance away, and the intervals would be too narrow.
 * @param sizes of the populations
 * @param statistics figures of a resample, given how often it holds each member of each population
 */
export function bootstrap<const K extends string>(
  sizes: readonly number[],
  statistics: (counts: readonly Uint32Array[]) => Readonly<Record<K, number>>,
  { resamples, seed }: BootstrapOptions,
): Record<K, Estimate> {
  const counts = sizes.map((size) => new Uint32Array(size).fill(1));
  const values = { ...statistics(counts) };
  const names = Object.keys(values) as K[];
  const drawn = new Map(names.map((name) => [name, new Float64Array(resamples)]));
  const random = new Random(seed);
  for (let i = 0; i < resamples; i++) {
    for (const population of counts) redraw(population, random);
    const found = statistics(counts);
    for (const [name, column] of drawn) column[i] = found[name];
  }
  const estimates = names.map((name) => {
    const sorted = drawn.get(name)?.sort() ?? [];
    const value = values[name];
    return [name, { value, low: quantile(sorted, LOW), high: quantile(sorted, HIGH) }];
  });
  return Object.fromEntries(estimates);
}

/** Draws as many members of a population as it has, with replacement. */
function redraw(counts: Uint32Array, random: Random): void {
  counts.fill(0);
  for (let i = 0; i < counts.length; i++) (counts[random.below(counts.length)] as number)++;
}
