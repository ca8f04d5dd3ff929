import { setTimeout } from "node:timers/promises";
import { type BenchCase, type Measurement, rateOf } from "./case.js";
import type { Contender } from "./contender.js";
import type { Answer, Order } from "./serve.js";

/** Rounds of a comparison: an odd number would give one order more than the other, so it is even. */
export const ROUNDS = 4;
/** Seconds after which a contender that has answered `FEW` times sits out the rest of a case. */
const ENOUGH_SECONDS = 20;
const FEW = 2;

/** Milliseconds between two turns: threads of native runtimes spin for up to 20 after their work (measured). */
const SETTLE = 25;

/** A measurement, and what only people are shown. */
export interface Result {
  readonly benchCase: BenchCase;
  readonly line: Measurement;
  /** Of single passes, in seconds: the tenth and the ninetieth of a hundred. */
  readonly spread: readonly [p10: number, p90: number];
}

/** How a case is measured. */
export interface Plan {
  readonly rounds: number;
  /** Least milliseconds of each contender, over all rounds. */
  readonly milliseconds: number;
  /** Least passes of each contender, over all rounds. */
  readonly passes: number;
  readonly threads: number;
}

/** The order of a round: every other one is reversed, so that nobody always follows the same one. */
export function orderOfRound<T>(contenders: readonly T[], round: number): T[] {
  return round % 2 === 0 ? [...contenders] : [...contenders].reverse();
}

/** Told why a contender has no result of the case. */
export type OnFailure = (contender: Contender, reason: string) => void;

interface Entry {
  readonly contender: Contender;
  readonly times: number[];
  sample?: readonly number[];
  seconds: number;
  answers: number;
  failed: boolean;
}

/**
 * Measures a case on each contender in turn, one at a time, over several rounds.
 * @param contenders ours first: the results of the others are compared with its
 */
export async function compare(
  benchCase: BenchCase,
  contenders: readonly Contender[],
  plan: Plan,
  onFailure: OnFailure,
): Promise<Result[]> {
  const entries: Entry[] = contenders.map((contender) => ({
    contender,
    times: [],
    seconds: 0,
    answers: 0,
    failed: false,
  }));
  const order: Order = {
    case: benchCase,
    milliseconds: plan.milliseconds / plan.rounds,
    passes: Math.ceil(plan.passes / plan.rounds),
  };
  for (let round = 0; round < plan.rounds; round++) {
    for (const entry of orderOfRound(entries, round)) {
      if (entry.failed || (entry.answers >= FEW && entry.seconds > ENOUGH_SECONDS)) continue;
      const start = performance.now();
      try {
        if (round === 0 && entry.contender.spec.fresh) await entry.contender.restart();
        take(entry, await entry.contender.ask(order));
      } catch (error) {
        entry.failed = true;
        onFailure(entry.contender, error instanceof Error ? error.message : String(error));
      }
      entry.seconds += (performance.now() - start) / 1000;
      if (entries.length > 1) await setTimeout(SETTLE);
    }
  }
  const [reference] = entries;
  return entries.flatMap((entry) => {
    if (entry.failed) return [];
    const problem = reference && disagreement(benchCase, reference.sample, entry.sample);
    if (problem) {
      onFailure(entry.contender, `it is not the same work: ${problem}`);
      return [];
    }
    return [resultOf(benchCase, entry, plan.threads)];
  });
}

function take(entry: Entry, { times, sample }: Answer): void {
  entry.times.push(...times);
  entry.answers++;
  if (sample) entry.sample = sample;
}

function resultOf(benchCase: BenchCase, { contender, times }: Entry, threads: number): Result {
  const { bench, dtype, shape, unit } = benchCase;
  const { who, variant, backend } = contender.spec;
  const median_seconds = quantile(times, 0.5);
  const rate = rateOf(benchCase, median_seconds);
  const line = { bench, who, variant, backend, threads, dtype, shape, median_seconds, rate, unit };
  return { benchCase, line, spread: [quantile(times, 0.1), quantile(times, 0.9)] };
}

/** The value below which the share `q` of the values lies: the nearest rank. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

/** What speaks against two results being of the same work, or undefined. */
export function disagreement(
  { tolerance }: Pick<BenchCase, "tolerance">,
  expected: readonly number[] | undefined,
  found: readonly number[] | undefined,
): string | undefined {
  if (tolerance === null || !expected || !found) return undefined;
  const most = tolerance * Math.max(...expected.map(Math.abs));
  for (const [i, value] of expected.entries()) {
    const other = found[i] ?? Number.NaN;
    if (!(Math.abs(value - other) <= most)) return `number ${i} of its result is ${other}, of ours ${value}`;
  }
  return undefined;
}
