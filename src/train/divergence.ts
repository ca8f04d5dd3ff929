import type { LossReport } from "./trainer.js";

/** Steps over which the loss must stay too high, and whose mean is its level. */
const WINDOW = 20;
/** Steps after which the loss has a first level: that of a model that has hardly moved yet. */
const FIRST = 5;
/** The default of `TrainOptions.divergence`. */
export const DIVERGENCE = 3;

/**
 * Tells a loss that has left for good from a noisy one. Its level is the mean of its last 20 steps; it has diverged
 * where each of the last 20 was above `factor` times the best level so far, and above half of the first level.
 *
 * The first condition is free of the loss's scale and hardly ever met by chance: a loss that is never negative is
 * above f times its mean with probability 1/f at most (Markov), so independent batches meet it 20 times on end
 * with f^-20, which is 3e-10 for the default of 3. The second keeps a loss that has almost vanished from being
 * measured by its own noise.
 */
export class LossWatch {
  readonly #recent: Readonly<Record<string, number>>[] = [];
  #first = 0;
  #best: Readonly<Record<string, number>> | undefined;

  /**
   * @param factor 0 for never
   * @throws RangeError where it is neither 0 nor above 1
   */
  constructor(readonly factor: number) {
    if (!(factor === 0 || factor > 1))
      throw new RangeError(`divergence must be 0 or a number above 1, got ${factor}`);
  }

  /** Takes a step's report. What is wrong with the loss, or null. */
  see({ loss, terms }: LossReport): string | null {
    this.#recent.push({ ...terms, loss });
    if (this.#recent.length > WINDOW) this.#recent.shift();
    if (this.#recent.length < FIRST) return null;

    const level = means(this.#recent);
    if (!this.#best) this.#first = level.loss as number;
    if (!this.#best || (level.loss as number) < (this.#best.loss as number)) this.#best = level;
    const best = this.#best.loss as number;
    const limit = Math.max(this.factor * best, this.#first / 2);
    if (this.factor === 0 || limit <= 0 || this.#recent.length < WINDOW) return null;
    if (!this.#recent.every((values) => (values.loss as number) > limit)) return null;
    return (
      `the loss has stayed above ${round(limit)} for ${WINDOW} steps, its best level was ${round(best)}` +
      mostRisen(this.#best, level)
    );
  }
}

/** The mean of each value. */
function means(reports: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const report of reports) {
    for (const [name, value] of Object.entries(report))
      sums[name] = (sums[name] ?? 0) + value / reports.length;
  }
  return sums;
}

/** The term that has risen most between two levels, as in `; most of all 'benign', from 0.1 to 7.5`. */
function mostRisen(from: Readonly<Record<string, number>>, to: Readonly<Record<string, number>>): string {
  const rise = (name: string) => (to[name] ?? 0) - (from[name] ?? 0);
  const [most] = Object.keys(to)
    .filter((name) => name !== "loss")
    .sort((a, b) => rise(b) - rise(a));
  if (most === undefined) return "";
  return `; most of all '${most}', from ${round(from[most] ?? 0)} to ${round(to[most] ?? 0)}`;
}

function round(value: number): string {
  return String(Number(value.toPrecision(4)));
}
