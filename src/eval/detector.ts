import { type BootstrapOptions, bootstrap } from "./bootstrap.js";
import type { Conversation } from "./conversations.js";
import type { DetectorResult } from "./evaluation.js";
import { mean } from "./metrics.js";
import { Ranking, type RocPoint } from "./ranking.js";

/** What a detector says of one conversation. */
export interface Reading {
  /** Higher means harmful; only the order counts. */
  readonly score: number;
  /** Whether the detector's own rule is met. */
  readonly flagged: boolean;
  /** The first position of the response where it is; null where it is not, or the detector reads it as a whole. */
  readonly first: number | null;
}

/** What a detector says of all conversations, in their order. */
export interface Readings {
  readonly harmful: readonly Reading[];
  readonly benign: readonly Reading[];
}

/** Anything that reads conversations. */
export interface Detector {
  readonly name: string;
  /** What it takes for harmful, in words. */
  readonly rule: string;
  read(conversations: readonly Conversation[]): Promise<Reading[]>;
}

/** A detector with what it said under every seed: one set of readings where it has no seeds. */
export interface DetectorReadings extends Pick<Detector, "name" | "rule"> {
  readonly seeds: readonly Readings[];
  /** The harmful conversations of every seed. */
  readonly harmful: readonly (readonly Conversation[])[];
}

/** False-positive rates of the figures. */
const ONE_PERCENT = 0.01;
const ONE_PER_MILLE = 0.001;

/** A detector's row: figures are means over its seeds. */
export function detectorResult(detector: DetectorReadings, options: BootstrapOptions): DetectorResult {
  const seeds = detector.seeds.map(measured);
  const [first] = seeds;
  if (!first) throw new RangeError(`${detector.name}: there are no readings`);
  const sizes = [seeds.length, first.harmful.length, first.benign.length];
  const estimates = bootstrap(sizes, (counts) => figures(seeds, counts), options);
  return {
    name: detector.name,
    auroc: estimates.auroc,
    average_precision: estimates.averagePrecision,
    tpr_at_1_percent_fpr: estimates.tprAtOnePercent,
    tpr_at_01_percent_fpr: estimates.tprAtOnePerMille,
    rule: detector.rule,
    flag_rate: estimates.flagRate,
    false_positive_rate: estimates.falsePositiveRate,
    delays: detector.seeds.flatMap(({ harmful }, seed) => delays(harmful, detector.harmful[seed] ?? [])),
    roc: meanCurve(seeds.map(({ ranking }) => ranking.curve())),
    auroc_by_seed: seeds.map(({ ranking }) => ranking.measure([]).auroc),
  };
}

/** What a figure needs of a seed's readings. */
interface Measured {
  readonly ranking: Ranking;
  /** 1 where the rule is met. */
  readonly harmful: Uint8Array;
  readonly benign: Uint8Array;
}

function measured({ harmful, benign }: Readings): Measured {
  const scores = (readings: readonly Reading[]) => readings.map(({ score }) => score);
  const flags = (readings: readonly Reading[]) =>
    Uint8Array.from(readings, ({ flagged }) => (flagged ? 1 : 0));
  const ranking = new Ranking({ positive: scores(harmful), negative: scores(benign) });
  return { ranking, harmful: flags(harmful), benign: flags(benign) };
}

/** The figures of a resample: the mean over the seeds that it holds, each as often as it holds them. */
function figures(seeds: readonly Measured[], [times, positive, negative]: readonly Uint32Array[]) {
  const total = {
    auroc: 0,
    averagePrecision: 0,
    tprAtOnePercent: 0,
    tprAtOnePerMille: 0,
    flagRate: 0,
    falsePositiveRate: 0,
  };
  if (!times || !positive || !negative) return total;
  seeds.forEach(({ ranking, harmful, benign }, seed) => {
    const share = (times[seed] ?? 0) / seeds.length;
    if (share === 0) return;
    const found = ranking.measure([ONE_PERCENT, ONE_PER_MILLE], { positive, negative });
    total.auroc += share * found.auroc;
    total.averagePrecision += share * found.averagePrecision;
    total.tprAtOnePercent += share * (found.tpr[0] as number);
    total.tprAtOnePerMille += share * (found.tpr[1] as number);
    total.flagRate += share * weightedRate(harmful, positive);
    total.falsePositiveRate += share * weightedRate(benign, negative);
  });
  return total;
}

/** The share of a resample whose flag is set; it holds as many as there are. */
function weightedRate(flags: Uint8Array, counts: Uint32Array): number {
  let sum = 0;
  for (let i = 0; i < flags.length; i++) sum += (flags[i] as number) * (counts[i] as number);
  return sum / flags.length;
}

/** Tokens from onset to flag, of the flagged ones that have both; below 0 where the flag came first. */
function delays(readings: readonly Reading[], conversations: readonly Conversation[]): number[] {
  return readings.flatMap(({ first }, i) => {
    const onset = conversations[i]?.onset ?? null;
    return first === null || onset === null ? [] : [first - onset];
  });
}

/**
 * The mean of curves at each false-positive rate (vertical averaging: Fawcett 2006), so that its area is the mean
 * AUROC. Pooling the scores of several adapters instead would compare what was never on one scale.
 */
export function meanCurve(curves: readonly (readonly RocPoint[])[]): RocPoint[] {
  const [only] = curves;
  if (only && curves.length === 1) return [...only];
  const rates = [...new Set(curves.flatMap((curve) => curve.map(([rate]) => rate)))].sort((a, b) => a - b);
  return rates.flatMap((rate): RocPoint[] => {
    const spans = curves.map((curve) => spanAt(curve, rate));
    const low = mean(spans.map(([from]) => from));
    const high = mean(spans.map(([, to]) => to));
    return low === high
      ? [[rate, low]]
      : [
          [rate, low],
          [rate, high],
        ];
  });
}

/** The true-positive rates that a curve has at a false-positive rate: from where it comes, to where it climbs. */
function spanAt(curve: readonly RocPoint[], rate: number): [number, number] {
  const there = curve.filter(([x]) => x === rate);
  const [first, last] = [there[0], there.at(-1)];
  if (first && last) return [first[1], last[1]];
  const after = curve.findIndex(([x]) => x > rate);
  const [x0, y0] = curve[after - 1] as RocPoint;
  const [x1, y1] = curve[after] as RocPoint;
  const y = y0 + ((rate - x0) / (x1 - x0)) * (y1 - y0);
  return [y, y];
}
