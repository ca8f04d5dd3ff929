/** What a rate counts a second of. */
export type Unit = "GFLOP/s" | "tokens/s" | "GB/s";

/** One thing to measure, the same for whoever does it. */
export interface BenchCase {
  readonly bench: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly unit: Unit;
  /** What the rate counts, of one pass: floating-point operations, tokens, or bytes. */
  readonly work: number;
  /**
   * What one pass cannot do without: floating-point operations, or bytes that it must read. The share of the limit
   * is the share of the `peak` or of the `bandwidth` of this machine at which it gets them.
   */
  readonly demand: { readonly of: "peak" | "bandwidth"; readonly amount: number };
  /**
   * How far apart the results of two contenders may be, as a share of the largest value; null where they may differ
   * by more than rounding.
   */
  readonly tolerance: number | null;
}

/** A line of `bench --json`, as the contract of the command line has it. */
export interface Measurement {
  readonly bench: string;
  readonly who: string;
  /** null for the competitors. */
  readonly variant: "portable" | "revectorized" | null;
  readonly backend: string;
  readonly threads: number;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly median_seconds: number;
  readonly rate: number;
  readonly unit: Unit;
}

/** What one pass of the case in `seconds` comes to, in its unit. */
export function rateOf({ work, unit }: BenchCase, seconds: number): number {
  return work / seconds / (unit === "tokens/s" ? 1 : 1e9);
}

/** For people: `matmul 192×192×192`. */
export function caseName({ bench, shape, dtype }: Pick<BenchCase, "bench" | "shape" | "dtype">): string {
  return `${bench} ${shape.join("×")}${dtype === "f32" ? "" : ` ${dtype}`}`;
}
