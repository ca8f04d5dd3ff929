import type { Estimate } from "../evaluation.js";

/** The normal distribution's 97.5th percentile: an interval of 95 %. */
const Z = 1.959963984540054;

/**
 * The mean of shares, one of each attacked conversation (0 or 1 where it is attacked once), and its interval of 95 %
 * after Wilson (1927). Attacks are dear and their conversations few: where all agree, a bootstrap would call ten of
 * them certain, and this says [0.72, 1]. For shares between 0 and 1 it is too wide rather than too narrow: no
 * distribution on [0, 1] varies more than the one of 0 and 1 with its mean.
 */
export function rate(shares: readonly number[]): Estimate {
  const n = shares.length;
  const value = shares.reduce((sum, share) => sum + share, 0) / n;
  const middle = value + Z ** 2 / (2 * n);
  const half = Z * Math.sqrt((value * (1 - value)) / n + Z ** 2 / (4 * n ** 2));
  const scale = 1 + Z ** 2 / n;
  return {
    value,
    low: Math.max(0, (middle - half) / scale),
    high: Math.min(1, (middle + half) / scale),
  };
}
