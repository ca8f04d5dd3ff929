import type { BenchCase } from "./case.js";

/** Multiply-adds of a pass: steps of a loop, accumulators, lanes of each. */
const PEAK_SHAPE = [1 << 20, 12, 4] as const;
/** Bytes that a pass reads: many times any cache. */
const BANDWIDTH_BYTES = 1 << 28;

/**
 * What bounds the others on this machine, of each thread: multiply-adds that never leave the registers, and reading
 * memory that no cache holds.
 */
export function limitCases(threads: number): readonly BenchCase[] {
  const flops = 2 * threads * PEAK_SHAPE.reduce((product, dim) => product * dim, 1);
  const bytes = threads * BANDWIDTH_BYTES;
  return [
    {
      bench: "peak",
      shape: PEAK_SHAPE,
      dtype: "f32",
      unit: "GFLOP/s",
      work: flops,
      demand: { of: "peak", amount: flops },
      tolerance: null,
    },
    {
      bench: "bandwidth",
      shape: [BANDWIDTH_BYTES],
      dtype: "f32",
      unit: "GB/s",
      work: bytes,
      demand: { of: "bandwidth", amount: bytes },
      tolerance: null,
    },
  ];
}
