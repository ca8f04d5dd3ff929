import pc from "picocolors";
import { table } from "../terminal.js";
import { caseName, type Measurement } from "./case.js";
import type { Result } from "./comparison.js";
import { contenderName } from "./contender.js";

/** The rate of each limit by variant, in G a second. */
export type Limits = Readonly<Record<"peak" | "bandwidth", Readonly<Partial<Record<string, number>>>>>;

/** The limits that were measured. */
export function limitsOf(results: readonly Result[]): Limits {
  const limits = { peak: {}, bandwidth: {} } as Record<keyof Limits, Record<string, number>>;
  for (const { line } of results) {
    if (line.who === "limit" && line.variant) limits[line.bench as keyof Limits][line.variant] = line.rate;
  }
  return limits;
}

/**
 * The share of the limit that a measurement reaches: of its own variant's, or of the best for competitors, which a
 * native one with wider vectors may exceed. Undefined where no limit was measured.
 */
export function shareOfLimit({ benchCase, line }: Result, limits: Limits): number | undefined {
  const { of, amount } = benchCase.demand;
  const rates = limits[of];
  const best = Math.max(...Object.values(rates).map((rate) => rate ?? 0));
  const limit = (line.variant && rates[line.variant]) || best;
  return limit > 0 ? amount / line.median_seconds / 1e9 / limit : undefined;
}

/** Our own best rate of the same case, which the ratios are of. */
export function ownRate(results: readonly Result[]): number | undefined {
  const own = results.filter(({ line }) => line.who === "oriflamme").map(({ line }) => line.rate);
  return own.length > 0 ? Math.max(...own) : undefined;
}

/** The results as a table, the contenders of a case from the fastest on. */
export function report(results: readonly Result[]): string {
  const limits = limitsOf(results);
  const hasLimits = Object.values(limits).some((rates) => Object.keys(rates).length > 0);
  const hasOthers = results.some(({ line }) => line.who !== "oriflamme" && line.who !== "limit");
  const head = ["bench", "who", "median", "p10 to p90", "rate"];
  if (hasOthers) head.push("of ours");
  if (hasLimits) head.push("of the limit");
  const ordered = [...byCase(results).values()].flatMap((group) => {
    const own = ownRate(group);
    return [...group]
      .sort((a, b) => b.line.rate - a.line.rate)
      .map((result, i) => ({ result, own, isFirst: i === 0 }));
  });
  const rows = ordered.map(({ result, own, isFirst }) => {
    const { line, spread } = result;
    const cells = [
      isFirst ? caseName(line) : "",
      contenderName(line),
      milliseconds(line.median_seconds),
      `${milliseconds(spread[0])} to ${milliseconds(spread[1])}`,
      `${significant(line.rate, 4)} ${line.unit}`,
    ];
    if (hasOthers)
      cells.push(line.who === "limit" || own === undefined ? "" : `${(line.rate / own).toFixed(2)}×`);
    if (hasLimits) cells.push(percent(shareOfLimit(result, limits)));
    return cells;
  });
  const [first, ...lines] = table([head, ...rows]).split("\n");
  return [first, ...lines.map((text, i) => styled(text, ordered[i]?.result.line))].join("\n");
}

/** The results of each case, in the order in which they came. */
function byCase(results: readonly Result[]): Map<string, Result[]> {
  const groups = new Map<string, Result[]>();
  for (const result of results) {
    const key = caseName(result.line);
    groups.set(key, [...(groups.get(key) ?? []), result]);
  }
  return groups;
}

function styled(text: string, line: Measurement | undefined): string {
  if (line?.who === "oriflamme") return pc.green(text);
  return line?.who === "limit" ? pc.dim(text) : text;
}

function milliseconds(seconds: number): string {
  return `${significant(seconds * 1000, 3)} ms`;
}

/** So many digits, without an exponent. */
function significant(value: number, digits: number): string {
  return `${Number(value.toPrecision(digits))}`;
}

function percent(share: number | undefined): string {
  return share === undefined ? "" : `${(100 * share).toFixed(0)} %`;
}
