import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";

const PEERS = new URL("../../bench/peers/", import.meta.url);
const isInstalled = existsSync(new URL("node_modules/@observablehq/plot/", PEERS));

const line = (who: string, variant: string | null, rate: number, bench = "matmul") => ({
  ...{ bench, who, variant, backend: "wasm", threads: 1, dtype: "f32", shape: [8, 8, 8] },
  ...{ median_seconds: 1, rate, unit: "GFLOP/s" },
});

// It comes with the competitors, which the package's tests do without.
describe.skipIf(!isInstalled)("the chart, where its library is installed", () => {
  it("has a bar for each, as long as its share of the fastest", async () => {
    const { chart } = await import(new URL("chart.mjs", PEERS).href);
    const svg: string = chart([
      line("limit", "portable", 60, "peak"),
      line("oriflamme", "portable", 50),
      line("pytorch", null, 100),
      line("tfjs-wasm", null, 25),
    ]);
    expect(svg).toMatch(/^<svg xmlns="http:\/\/www.w3.org\/2000\/svg"/);
    expect(svg).toContain("prefers-color-scheme: dark");
    // The legend's squares are 10 wide. The limit has no bar.
    const widthOf = (colour: string) => {
      const bar = [...svg.matchAll(/<rect [^>]*>/g)]
        .map(([tag]) => tag)
        .find((tag) => tag.includes(colour) && !tag.includes('width="10"'));
      return Number(/width="([\d.]+)"/.exec(bar ?? "")?.[1]);
    };
    const longest = widthOf("#8a8f98");
    expect(longest).toBeGreaterThan(0);
    expect(widthOf("#f08088") / longest).toBeCloseTo(0.5, 6);
    expect(widthOf("#d99a1c") / longest).toBeCloseTo(0.25, 6);
    expect(svg).not.toContain("limit");
  });

  it("is not drawn of nothing", async () => {
    const { chart } = await import(new URL("chart.mjs", PEERS).href);
    expect(() => chart([line("limit", "portable", 60, "peak")])).toThrow(/no measurement/);
  });
});
