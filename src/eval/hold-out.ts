import type { Random } from "../random.js";

/** The share of a data set that is held out where no other set is given to measure on. */
export const HELD_OUT_SHARE = 0.2;

/** A data set in two parts, each in the order of the whole. */
export interface Split<T> {
  readonly training: readonly T[];
  readonly heldOut: readonly T[];
}

/**
 * Splits a data set at random: `HELD_OUT_SHARE` of it, rounded, is held out, and at least one item on either side.
 * @param name of the data, for messages
 * @throws RangeError where there are fewer than two items
 */
export function holdOut<T>(items: readonly T[], name: string, random: Random): Split<T> {
  if (items.length < 2)
    throw new RangeError(`${name}: one example cannot be split into training and held-out data`);
  const count = Math.max(1, Math.round(HELD_OUT_SHARE * items.length));
  const chosen = new Set(random.shuffle(items.map((_, i) => i)).slice(0, count));
  return {
    training: items.filter((_, i) => !chosen.has(i)),
    heldOut: items.filter((_, i) => chosen.has(i)),
  };
}
