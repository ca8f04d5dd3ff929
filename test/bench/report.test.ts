import { stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import type { BenchCase, Measurement } from "../../src/cli/bench/case.js";
import { caseName, rateOf } from "../../src/cli/bench/case.js";
import type { Result } from "../../src/cli/bench/comparison.js";
import { limitsOf, ownRate, report, shareOfLimit } from "../../src/cli/bench/report.js";

const MATMUL: BenchCase = {
  bench: "matmul",
  shape: [100, 100, 100],
  dtype: "f32",
  unit: "GFLOP/s",
  work: 2e6,
  demand: { of: "peak", amount: 2e6 },
  tolerance: 1e-3,
};
const DECODE: BenchCase = {
  ...{ bench: "decode", shape: [288], dtype: "q8_0", unit: "tokens/s", work: 1, tolerance: null },
  demand: { of: "bandwidth", amount: 20e6 },
};
const peak = (flops: number): BenchCase => ({ ...MATMUL, bench: "peak", shape: [1], work: flops });
const BANDWIDTH: BenchCase = { ...DECODE, bench: "bandwidth", unit: "GB/s", work: 1e9, dtype: "f32" };

function result(benchCase: BenchCase, who: string, variant: Measurement["variant"], seconds: number): Result {
  const { bench, shape, dtype, unit } = benchCase;
  const rate = rateOf(benchCase, seconds);
  const line = {
    ...{ bench, who, variant, backend: "wasm", threads: 1, dtype, shape },
    ...{ median_seconds: seconds, rate, unit },
  };
  return { benchCase, line, spread: [seconds * 0.9, seconds * 1.1] };
}

const RESULTS = [
  result(peak(50e9), "limit", "portable", 1),
  result(peak(100e9), "limit", "revectorized", 1),
  result(BANDWIDTH, "limit", "portable", 0.05),
  result(MATMUL, "oriflamme", "portable", 50e-6),
  result(MATMUL, "oriflamme", "revectorized", 25e-6),
  result(MATMUL, "pytorch", null, 20e-6),
  result(DECODE, "llama.cpp", null, 2e-3),
] as const;

describe("rates", () => {
  it("count thousands of millions but for tokens", () => {
    expect(rateOf(MATMUL, 1e-3)).toBeCloseTo(2, 12);
    expect(rateOf(BANDWIDTH, 0.5)).toBeCloseTo(2, 12);
    expect(rateOf({ ...DECODE, work: 2048 }, 2)).toBe(1024);
  });

  it("have a name", () => {
    expect(caseName(MATMUL)).toBe("matmul 100×100×100");
    expect(caseName(DECODE)).toBe("decode 288 q8_0");
  });
});

describe("the share of the limit", () => {
  const limits = limitsOf(RESULTS);
  const share = (i: number) => shareOfLimit(RESULTS[i] as Result, limits);

  it("is of the own variant's peak, for competitors of the best", () => {
    expect(limits).toEqual({ peak: { portable: 50, revectorized: 100 }, bandwidth: { portable: 20 } });
    // 2e6 operations: in 50 µs 40 GFLOP/s of 50, in 25 µs 80 of 100, in 20 µs 100 of 100.
    expect(share(3)).toBeCloseTo(0.8, 12);
    expect(share(4)).toBeCloseTo(0.8, 12);
    expect(share(5)).toBeCloseTo(1, 12);
  });

  it("is of the bandwidth where memory bounds", () => {
    // 20 MB in 2 ms are 10 GB/s of 20.
    expect(share(6)).toBeCloseTo(0.5, 12);
  });

  it("is unknown where no limit was measured", () => {
    expect(shareOfLimit(RESULTS[3], limitsOf([]))).toBeUndefined();
  });
});

describe("the table", () => {
  /** The cells of the line that names all of these; whether it has colours is the terminal's affair. */
  const cells = (text: string, ...words: string[]) =>
    stripVTControlCharacters(text)
      .split("\n")
      .find((line) => words.every((word) => line.includes(word)))
      ?.trim()
      .split(/\s{2,}/);

  it("has ratios to our best, shares, and the fastest first", () => {
    const text = report(RESULTS);
    expect(cells(text, "bench")).toEqual([
      ...["bench", "who", "median", "p10 to p90", "rate", "of ours", "of the limit"],
    ]);
    expect(cells(text, "pytorch")).toEqual([
      ...[
        "matmul 100×100×100",
        "pytorch",
        "0.02 ms",
        "0.018 ms to 0.022 ms",
        "100 GFLOP/s",
        "1.25×",
        "100 %",
      ],
    ]);
    expect(cells(text, "oriflamme, revectorized")?.slice(3)).toEqual(["80 GFLOP/s", "1.00×", "80 %"]);
    expect(cells(text, "oriflamme, portable")?.slice(3)).toEqual(["40 GFLOP/s", "0.50×", "80 %"]);
    const order = [...text.matchAll(/pytorch|oriflamme, \w+/g)].map(([name]) => name);
    expect(order).toEqual(["pytorch", "oriflamme, revectorized", "oriflamme, portable"]);
  });

  it("has no ratio where we do not take part", () => {
    expect(cells(report(RESULTS), "llama.cpp")?.slice(4)).toEqual(["500 tokens/s", "50 %"]);
    expect(ownRate([RESULTS[6]])).toBeUndefined();
    expect(ownRate(RESULTS.slice(3, 6))).toBeCloseTo(80, 10);
  });

  it("leaves out the columns that nobody fills", () => {
    const text = report([RESULTS[3]]);
    expect(cells(text, "bench")).toEqual(["bench", "who", "median", "p10 to p90", "rate"]);
  });
});
