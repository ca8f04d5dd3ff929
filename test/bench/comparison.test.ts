import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { BenchCase } from "../../src/cli/bench/case.js";
import { compare, disagreement, orderOfRound, quantile } from "../../src/cli/bench/comparison.js";
import { Contender } from "../../src/cli/bench/contender.js";

const FAKE = fileURLToPath(new URL("./fake-contender.mjs", import.meta.url));
const CASE: BenchCase = {
  bench: "matmul",
  shape: [10, 10, 10],
  dtype: "f32",
  unit: "GFLOP/s",
  work: 2000,
  demand: { of: "peak", amount: 2000 },
  tolerance: 1e-3,
};
const PLAN = { rounds: 4, milliseconds: 400, passes: 3, threads: 2 };

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "oriflamme-bench-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Starts a fake for the length of `use`; its answers are those of fake-contender.mjs. */
async function fake(
  name: string,
  log: string,
  answers: unknown[],
  introduction?: unknown,
): Promise<Contender> {
  const { contender } = await Contender.start({
    who: name,
    variant: null,
    backend: "wasm",
    command: [process.execPath, FAKE, name, join(folder, log), JSON.stringify({ answers, introduction })],
    does: { matmul: ["f32"] },
  });
  return contender;
}

async function compareAll(contenders: readonly Contender[]) {
  const failures: string[] = [];
  const results = await compare(CASE, contenders, PLAN, ({ spec }, reason) =>
    failures.push(`${spec.who}: ${reason}`),
  );
  for (const contender of contenders) contender.dispose();
  return { results, failures };
}

describe("a comparison", () => {
  it("gives turns one at a time, in an order that alternates", async () => {
    const answers = [{ times: [1], sample: [1] }];
    const contenders = [];
    for (const name of ["a", "b", "c"]) contenders.push(await fake(name, "turns", answers));
    const { failures } = await compareAll(contenders);
    expect(failures).toEqual([]);
    const turns = (await readFile(join(folder, "turns"), "utf8")).trim().split("\n");
    // A quarter of the time and of the passes for each of four rounds.
    const expected = [..."abccbaabccba"].flatMap((name) => [`${name} begins 100 1`, `${name} ends`]);
    expect(turns).toEqual(expected);
  });

  it("takes the median of all passes of all rounds", async () => {
    const answers = [
      { times: [0.5, 4e-6], sample: [1, 2] },
      { times: [2e-6] },
      { times: [1e-6] },
      { times: [3e-6] },
    ];
    const { results } = await compareAll([await fake("a", "median", answers)]);
    const { rate, ...line } = results[0]?.line ?? { rate: 0 };
    expect(line).toEqual({
      ...{ bench: "matmul", who: "a", variant: null, backend: "wasm", threads: 2, dtype: "f32" },
      ...{ shape: [10, 10, 10], median_seconds: 3e-6, unit: "GFLOP/s" },
    });
    expect(rate).toBeCloseTo(2000 / 3e-6 / 1e9, 12);
    expect(results[0]?.spread).toEqual([1e-6, 0.5]);
  });

  it("leaves out who computed something else, and says what", async () => {
    const { results, failures } = await compareAll([
      await fake("ours", "other", [{ times: [1], sample: [2, -4] }]),
      await fake("near", "other", [{ times: [1], sample: [2.003, -4] }]),
      await fake("far", "other", [{ times: [1], sample: [2, -4.1] }]),
    ]);
    expect(results.map(({ line }) => line.who)).toEqual(["ours", "near"]);
    expect(failures).toEqual(["far: it is not the same work: number 1 of its result is -4.1, of ours -4"]);
  });

  it("goes on without who fails", async () => {
    const fine = [{ times: [1], sample: [1] }];
    const { results, failures } = await compareAll([
      await fake("ours", "failing", fine),
      await fake("refuses", "failing", [{ error: "no memory" }]),
      await fake("dies", "failing", [...fine, "die"]),
      await fake("babbles", "failing", ["hello"]),
    ]);
    expect(results.map(({ line }) => line.who)).toEqual(["ours"]);
    expect(failures).toEqual([
      "refuses: no memory",
      "babbles: it answered 'hello'",
      "dies: its process ended with code 3",
    ]);
    const turns = await readFile(join(folder, "failing"), "utf8");
    expect(turns.match(/refuses begins/g)).toHaveLength(1);
    expect(turns.match(/ours begins/g)).toHaveLength(4);
  });

  it("does not begin with who cannot take part", async () => {
    const start = (introduction: unknown) => fake("a", "start", [], introduction);
    await expect(start({ unavailable: "x is not installed" })).rejects.toThrow("x is not installed");
    await expect(start({ unavailable: "bad option", usage: true })).rejects.toThrow(RangeError);
    const command = [join(folder, "nothing")] as const;
    await expect(
      Contender.start({ who: "a", variant: null, backend: "native", command, does: {} }),
    ).rejects.toThrow(/ENOENT/);
  });
});

describe("its parts", () => {
  it("order", () => {
    expect(orderOfRound(["a", "b", "c"], 0)).toEqual(["a", "b", "c"]);
    expect(orderOfRound(["a", "b", "c"], 1)).toEqual(["c", "b", "a"]);
  });

  it("quantiles of unsorted values", () => {
    const values = [5, 1, 4, 2, 3, 10, 9, 8, 7, 6];
    expect([0.1, 0.5, 0.9].map((q) => quantile(values, q))).toEqual([2, 6, 10]);
    expect(quantile([7], 0.9)).toBe(7);
    expect(quantile([], 0.5)).toBeNaN();
  });

  it("disagreement, which nothing hides", () => {
    expect(disagreement({ tolerance: null }, [1], [2])).toBeUndefined();
    expect(disagreement({ tolerance: 0 }, [7, 8], [7, 8])).toBeUndefined();
    expect(disagreement({ tolerance: 0 }, [7, 8], [7, 9])).toMatch(/number 1/);
    expect(disagreement({ tolerance: 0.1 }, [1], [Number.NaN])).toMatch(/NaN/);
    expect(disagreement({ tolerance: 0.1 }, [1, 2], [1])).toMatch(/number 1/);
  });
});
