import type { Random } from "../random.js";

/**
 * Where the flag is put into a harmful response of n tokens with the onset k (PAPER.md, "Training objective"): it
 * stands before token i, and the positions from k to i should flag.
 *
 * - `uniform`: i uniform on [k, n - 1].
 * - `onset`: i = k.
 * - `geometric(p)`: i - k geometric with parameter p, cut to [k, n - 1]: small offsets are the likelier.
 * - `fixed`: k = i = 0, whatever the onset: the flag is trained as the first token of the response only. It is the
 *   paper's baseline Fixed-Pos.
 */
export type Placement = "uniform" | "onset" | `geometric(${number})` | "fixed";

/** A drawn place: both of the response's positions, 0 <= onset <= insertAt < n. */
export interface FlagPlace {
  /** k: the first position that should flag. */
  readonly onset: number;
  /** i: the flag stands before this token. */
  readonly insertAt: number;
}

/** Draws the flag's place in a response of `length` tokens, `onset` less than that unless the law is `fixed`. */
export type PlaceFlag = (onset: number, length: number, random: Random) => FlagPlace;

/**
 * The law of that name.
 * @throws RangeError for a name that is none, or a p outside (0, 1]
 */
export function placementLaw(placement: Placement): PlaceFlag {
  if (placement === "fixed") return () => ({ onset: 0, insertAt: 0 });
  if (placement === "onset") return (onset) => ({ onset, insertAt: onset });
  if (placement === "uniform") {
    return (onset, length, random) => ({ onset, insertAt: onset + random.below(length - onset) });
  }
  const p = Number(/^geometric\((.+)\)$/.exec(placement)?.[1]);
  if (!(p > 0 && p <= 1)) {
    throw new RangeError(
      `placement must be uniform, onset, geometric(p) with p in (0, 1], or fixed, got '${placement}'`,
    );
  }
  return (onset, length, random) => ({ onset, insertAt: onset + geometric(p, length - onset, random) });
}

/** A number m in [0, count) with P(m) in proportion to p (1 - p)^m, by the inverse of its distribution. */
function geometric(p: number, count: number, random: Random): number {
  const log = Math.log1p(-p);
  // P(m < c) = (1 - (1 - p)^c) / (1 - (1 - p)^count); the logarithms keep their digits where p is small.
  const mass = -Math.expm1(count * log);
  const drawn = Math.floor(Math.log1p(-random.uniform() * mass) / log);
  return Math.min(drawn, count - 1);
}
