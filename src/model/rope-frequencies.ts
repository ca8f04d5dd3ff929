import type { ModelConfig, RopeScaling } from "./config.js";

/**
 * Angles a position advances by, for each pair of the rotated numbers of a head: (dim / 2), in float64.
 * @param dim how many numbers of a head are rotated
 * @param length the longest sequence of the pass, cached positions included: LongRoPE and dynamic scaling ask for it
 */
export function ropeFrequencies(
  dim: number,
  theta: number,
  scaling: RopeScaling,
  length: number,
): Float64Array {
  const plain = (base: number) => Float64Array.from({ length: dim / 2 }, (_, i) => base ** ((-2 * i) / dim));
  const frequencies = plain(theta);
  switch (scaling.kind) {
    case "none":
      return frequencies;
    case "linear":
      return frequencies.map((frequency) => frequency / scaling.factor);
    case "llama3": {
      // A wave that fits `highFreqFactor` times into the original context is kept, one that does not fit
      // `lowFreqFactor` times is stretched, and the weight of the two moves linearly between.
      const { lowFreqFactor: low, highFreqFactor: high, originalContextLength, factor } = scaling;
      return frequencies.map((frequency) => {
        const turns = (originalContextLength * frequency) / (2 * Math.PI);
        return stretched(frequency, factor, (turns - low) / (high - low));
      });
    }
    case "dynamic": {
      if (length <= scaling.originalContextLength) return frequencies;
      // Theta grows so that the slowest pair is slowed by this stretch, and the fastest not at all.
      const stretch = (scaling.factor * length) / scaling.originalContextLength - (scaling.factor - 1);
      return plain(theta * stretch ** (dim / (dim - 2)));
    }
    case "yarn": {
      const [first, last] = yarnRamp(dim, theta, scaling);
      return frequencies.map((frequency, i) =>
        stretched(frequency, scaling.factor, 1 - (i - first) / (last - first)),
      );
    }
    case "longrope": {
      const isLong = length > scaling.originalContextLength;
      const divisors = isLong ? scaling.longFactors : scaling.shortFactors;
      return frequencies.map((frequency, i) => frequency / (divisors[i] as number));
    }
  }
}

/** A frequency of which `keep`, cut to [0, 1], stays and the rest is divided by the factor. */
function stretched(frequency: number, factor: number, keep: number): number {
  const share = Math.min(1, Math.max(0, keep));
  return share * frequency + ((1 - share) * frequency) / factor;
}

/** The pairs between which YaRN's ramp falls from keeping to stretching: section 3.2 of Peng et al. 2023. */
function yarnRamp(
  dim: number,
  theta: number,
  { originalContextLength, betaFast, betaSlow, truncate }: Extract<RopeScaling, { kind: "yarn" }>,
): [number, number] {
  const pairOf = (turns: number) =>
    (dim * Math.log(originalContextLength / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [first, last] = [pairOf(betaFast), pairOf(betaSlow)];
  const low = Math.max(0, truncate ? Math.floor(first) : first);
  const high = Math.min(dim - 1, truncate ? Math.ceil(last) : last);
  return low === high ? [low, high + 0.001] : [low, high];
}

/** The longest sequence that is rotated as one of `length` is: the tables of one serve the other. */
export function ropeReach(scaling: RopeScaling, length: number): number {
  if (scaling.kind !== "longrope" && scaling.kind !== "dynamic") return Number.POSITIVE_INFINITY;
  if (length <= scaling.originalContextLength) return scaling.originalContextLength;
  return scaling.kind === "dynamic" ? length : Number.POSITIVE_INFINITY;
}

/**
 * Whether LongRoPE rotates sequences of that length by its long factors. Keys of a cache that were turned by the other
 * ones do not fit: a pass leaves them as they are, as one of transformers does, and who generates computes them anew,
 * as transformers' Phi-3 means to.
 */
export function usesLongFactors({ position }: ModelConfig, length: number): boolean {
  if (position.kind !== "rope" || position.scaling.kind !== "longrope") return false;
  return length > position.scaling.originalContextLength;
}

/** The longest sequence that a model rotates as one of `length` is: any, where length does not matter to it. */
export function rotaryReach({ position }: ModelConfig, length: number): number {
  return position.kind === "rope" ? ropeReach(position.scaling, length) : Number.POSITIVE_INFINITY;
}
