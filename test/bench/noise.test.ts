import { describe, expect, it } from "vitest";
import { noise, noiseIds } from "../../src/cli/bench/noise.js";

/** MurmurHash3's fmix32, in exact integers. */
function fmix32(value: bigint): bigint {
  const mask = 0xffffffffn;
  let h = value & mask;
  h = ((h ^ (h >> 16n)) * 0x85ebca6bn) & mask;
  h = ((h ^ (h >> 13n)) * 0xc2b2ae35n) & mask;
  return h ^ (h >> 16n);
}

describe("the numbers of a benchmark", () => {
  it("are those of the published hash", () => {
    // A known value of the finaliser, so that this test's own is right.
    expect(fmix32(1n)).toBe(0x514e28b7n);
    for (const stream of [0, 1, 63]) {
      const values = noise(1000, stream);
      for (const i of [0, 1, 2, 500, 999]) {
        const hash = fmix32(0x9e3779b9n * BigInt(stream + 1) + BigInt(i));
        expect(values[i]).toBe(Number(hash >> 8n) / 2 ** 24 - 0.5);
      }
    }
  });

  it("are spread evenly, and differ by stream", () => {
    const values = noise(10_000, 3);
    expect(Math.min(...values)).toBeGreaterThanOrEqual(-0.5);
    expect(Math.max(...values)).toBeLessThan(0.5);
    // The mean of 10,000 has a standard deviation of 0.0029; five of them.
    expect(Math.abs(values.reduce((sum, x) => sum + x, 0) / 10_000)).toBeLessThan(0.0145);
    expect(noise(10, 4)).not.toEqual(noise(10, 3));
  });

  it("make ids of the whole vocabulary, and none outside", () => {
    const ids = new Set(noiseIds(2000, 16, 0));
    expect([...ids].sort((a, b) => a - b)).toEqual(Array.from({ length: 16 }, (_, i) => i));
  });
});
