import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseHTML } from "linkedom";
import { beforeAll, describe, expect, it } from "vitest";
import { BENIGN, fail, HARMFUL, jsonLines, lines, oriflamme, parseLines, succeed, workshop } from "./run.js";

const folder = workshop();

const SWEEP = [
  ...["sweep", "--model", "model", "--harmful", "harmful.jsonl", "--benign", "benign.jsonl"],
  ...["--steps", "3", "--threads", "1", "--deterministic"],
];
const GRID = ["--grid", "benign=1,4", "--grid", "lr=0.01,0.02"];
const METRICS = ["auroc", "tpr_at_1_percent_fpr", "kl_per_token", "perplexity_ratio"];

const fileOf = async (out: string) => JSON.parse(await readFile(join(folder(), out, "sweep.json"), "utf8"));

/** The lines of a sweep that nothing disturbed. */
let whole: Record<string, unknown>[] = [];
beforeAll(async () => {
  whole = await jsonLines(folder(), ...SWEEP, ...GRID, "--seeds", "0,1", "--out", "whole");
});

describe("sweep", () => {
  it("prints a line a point, and writes them all with a report", async () => {
    expect(whole.map(({ values, seed }) => ({ values, seed }))).toEqual(
      [0, 1].flatMap((seed) =>
        [1, 4].flatMap((benign) => [0.01, 0.02].map((lr) => ({ values: { benign, lr }, seed }))),
      ),
    );
    for (const line of whole) {
      expect(Object.keys(line)).toEqual(["values", "seed", ...METRICS]);
      for (const name of METRICS) expect(line[name]).toEqual(expect.any(Number));
    }
    expect((await readdir(join(folder(), "whole"))).sort()).toEqual(["report.html", "sweep.json"]);
    const { version, run, data, sweep } = await fileOf("whole");
    expect({ version, failed: sweep.failed, parameters: sweep.parameters }).toEqual({
      ...{ version: 1, failed: [], parameters: ["benign", "lr"] },
    });
    expect(sweep.points).toEqual(
      whole.map(({ values, ...rest }) => ({ values: Object.values(values ?? {}), ...rest })),
    );
    expect(run.command.slice(0, 2)).toEqual(["oriflamme", "sweep"]);
    // A fifth of three, and of two, at least one.
    expect(data).toEqual({
      harmful: { path: "harmful.jsonl", examples: 1, generated: 0, left_out: 0 },
      benign: { path: "benign.jsonl", examples: 1, generated: 0, left_out: 0 },
    });
    const { document } = parseHTML(await readFile(join(folder(), "whole", "report.html"), "utf8"));
    expect([...document.querySelectorAll("main > section")].map(({ id }) => id)).toEqual([
      "sweep",
      "data",
      "run",
    ]);
    expect(document.querySelectorAll("#sweep tbody tr")).toHaveLength(4);
  });

  it("trains only what its file does not have", async () => {
    const first = await jsonLines(folder(), ...SWEEP, "--grid", "ce=1,2", "--out", "grown");
    const more = await jsonLines(folder(), ...SWEEP, "--grid", "ce=2,3", "--seeds", "0,1", "--out", "grown");
    expect(more.map(({ values, seed }) => [values, seed])).toEqual([
      [{ ce: 3 }, 0],
      [{ ce: 2 }, 1],
      [{ ce: 3 }, 1],
    ]);
    const { sweep } = await fileOf("grown");
    expect(sweep.points.map(({ kl_per_token: kl }: { kl_per_token: number }) => kl)).toEqual(
      [...first, ...more].map(({ kl_per_token: kl }) => kl),
    );
    const text = await succeed(folder(), ...SWEEP, "--grid", "ce=1,2", "--out", "grown");
    expect(text).toMatch(
      /^ce +seeds +AUROC .*\n1 +1 .*\n2 +2 .*\n3 +2 .*\ngrown: 5 points, 0 of them trained now\n$/,
    );
  });

  it("goes on where it was killed, and ends as if it had not been", async () => {
    const args = [...SWEEP, ...GRID, "--out", "killed", "--json"];
    let printed = 0;
    const killed = await oriflamme(folder(), args, {
      onOutput: (text, kill) => {
        printed += text.split("\n").length - 1;
        if (printed >= 2) kill("SIGKILL");
      },
    });
    expect(killed.signal).toBe("SIGKILL");
    const before = (await fileOf("killed")).sweep.points;
    expect(before.length).toBeGreaterThanOrEqual(parseLines(killed.stdout).length);
    await succeed(folder(), ...args);
    const points = whole
      .slice(0, 4)
      .map(({ values, ...rest }) => ({ values: Object.values(values ?? {}), ...rest }));
    expect((await fileOf("killed")).sweep).toEqual({ parameters: ["benign", "lr"], points, failed: [] });
  });

  it("stops whole at Ctrl-C, and says how to go on", async () => {
    // The last point would take for ever.
    const long = [...SWEEP.filter((arg) => arg !== "--steps" && arg !== "3"), "--grid", "steps=3,100000"];
    const result = await oriflamme(folder(), [...long, "--out", "interrupted", "--json"], {
      onOutput: (_, kill) => kill("SIGINT"),
    });
    expect(result.stderr).toMatch(
      /^oriflamme: stopped by SIGINT; 1 of 2 points are kept, the same command goes on\n$/,
    );
    expect(result.code).toBe(130);
    expect((await fileOf("interrupted")).sweep.points).toHaveLength(1);
    expect(await readdir(join(folder(), "interrupted"))).toEqual(["sweep.json"]);
  });

  it("refuses the file of another sweep, and leaves it as it is", async () => {
    await succeed(folder(), ...SWEEP, "--grid", "ce=1", "--out", "other");
    const before = await readFile(join(folder(), "other", "sweep.json"), "utf8");
    const refused = async (...args: string[]) =>
      fail(folder(), 1, ...SWEEP, "--out", "other", "--json", ...args);
    await writeFile(join(folder(), "config.json"), JSON.stringify({ rank: 5, loss: { post: 2 } }));
    expect(await refused("--grid", "ce=1", "--config", "config.json")).toBe(
      "other/sweep.json: is of another sweep: rank was 64 and is 5; loss.post was 1 and is 2",
    );
    expect(await refused("--grid", "ce=1", "--dtype", "bf16")).toMatch(/the model's weights differ$/);
    await writeFile(join(folder(), "more.jsonl"), lines([...HARMFUL, ...HARMFUL]));
    expect(await refused("--grid", "ce=1", "--harmful", "more.jsonl")).toMatch(/harmful data differ/);
    expect(await readFile(join(folder(), "other", "sweep.json"), "utf8")).toBe(before);
  });

  it("measures on the data that it is given for it", async () => {
    await writeFile(join(folder(), "held-harmful.jsonl"), lines(HARMFUL.slice(0, 2)));
    await writeFile(join(folder(), "held-benign.jsonl"), lines([...BENIGN, { prompt: "no answer" }]));
    const held = ["--eval-harmful", "held-harmful.jsonl", "--eval-benign", "held-benign.jsonl"];
    expect(await jsonLines(folder(), ...SWEEP, "--grid", "ce=1", ...held, "--out", "held")).toHaveLength(1);
    expect((await fileOf("held")).data).toEqual({
      harmful: { path: "held-harmful.jsonl", examples: 2, generated: 0, left_out: 0 },
      benign: { path: "held-benign.jsonl", examples: 3, generated: 0, left_out: 1 },
    });
  });

  it("takes a point that diverged as a result, and fails where all did", async () => {
    const diverging = ["--grid", "lr=1e37,0.01", "--out", "diverging"];
    const found = await jsonLines(folder(), ...SWEEP, ...diverging);
    expect(found[0]).toEqual({
      values: { lr: 1e37 },
      seed: 0,
      reason: expect.stringMatching(/^(step|after)/),
    });
    expect(found[1]).toMatchObject({ values: { lr: 0.01 }, auroc: expect.any(Number) });
    expect(await succeed(folder(), ...SWEEP, ...diverging)).toContain("diverged: lr 1e+37, seed 0: ");
    const all = await oriflamme(folder(), [...SWEEP, "--grid", "lr=1e37", "--out", "lost", "--json"]);
    expect(all.code).toBe(1);
    expect(all.stderr).toMatch(/^oriflamme: lost: every point diverged; the first: .*\n$/);
    expect((await readdir(join(folder(), "lost"))).sort()).toEqual(["report.html", "sweep.json"]);
  });

  it("fails before any work where --out is a file, or data cannot be split", async () => {
    expect(await fail(folder(), 1, ...SWEEP, "--grid", "ce=1", "--out", "text.txt")).toBe(
      "text.txt: cannot be written: it is not a folder",
    );
    await writeFile(join(folder(), "one.jsonl"), lines(BENIGN.slice(0, 1)));
    const args = [...SWEEP, "--grid", "ce=1", "--out", "unsplit", "--benign", "one.jsonl"];
    expect(await fail(folder(), 2, ...args)).toBe(
      "--benign: one example cannot be split into training and held-out data",
    );
  });
});
