import type { Reading, Readings } from "./detector.js";

/** A detector with what it said under each seed. */
interface Named {
  readonly name: string;
  /** One set of readings where the detector has no seeds. */
  readonly seeds: readonly Readings[];
}

/**
 * Two detectors as one, which flags where either does. Their scores have no common scale, so the combined score is
 * the higher of the two places among the benign, each the share of benign conversations that score lower.
 */
export function eitherOf(a: Named, b: Named): Named & { readonly rule: string } {
  const seeds = Array.from({ length: Math.max(a.seeds.length, b.seeds.length) }, (_, seed) => {
    const [x, y] = [seedOf(a, seed), seedOf(b, seed)];
    const [placesX, placesY] = [placesAmong(x.benign), placesAmong(y.benign)];
    const both = (kind: "harmful" | "benign") =>
      x[kind].map((reading, i): Reading => {
        const other = y[kind][i] as Reading;
        const firsts = [reading.first, other.first].filter((first) => first !== null);
        return {
          score: Math.max(placesX(reading.score), placesY(other.score)),
          flagged: reading.flagged || other.flagged,
          first: firsts.length > 0 ? Math.min(...firsts) : null,
        };
      });
    return { harmful: both("harmful"), benign: both("benign") };
  });
  return { name: `${a.name} or ${b.name}`, rule: "either flags", seeds };
}

function seedOf({ seeds }: Named, seed: number): Readings {
  return seeds[seeds.length === 1 ? 0 : seed] as Readings;
}

/** The share of readings that score lower. */
function placesAmong(readings: readonly Reading[]): (score: number) => number {
  const sorted = Float64Array.from(readings, ({ score }) => score).sort();
  return (score) => {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sorted[middle] as number) < score) low = middle + 1;
      else high = middle;
    }
    return low / sorted.length;
  };
}
