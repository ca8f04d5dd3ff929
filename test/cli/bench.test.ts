import { cp, mkdir, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectOneLine, jsonLines, oriflamme, parseLines, succeed } from "./run.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FIELDS = [
  ...["bench", "who", "variant", "backend", "threads", "dtype", "shape", "median_seconds", "rate", "unit"],
];

/** What a pass of each benchmark counts, by what its shape says. */
const WORK: Readonly<Record<string, (shape: readonly number[]) => number>> = {
  matmul: ([m = 0, k = 0, n = 0]) => 2e-9 * m * k * n,
  // Of length² scores half: a product and a sum each, for q·k and p·v, and five products more backward.
  attention: ([b = 0, t = 0, h = 0, d = 0]) => 2e-9 * b * h * d * t * t,
  "attention+backward": ([b = 0, t = 0, h = 0, d = 0]) => 7e-9 * b * h * d * t * t,
  decode: () => 1,
  // Steps, accumulators, lanes; bytes.
  peak: ([steps = 0, accumulators = 0, lanes = 0]) => 2e-9 * steps * accumulators * lanes,
  bandwidth: ([bytes = 0]) => 1e-9 * bytes,
};

interface Line {
  readonly bench: string;
  readonly shape: readonly number[];
  readonly median_seconds: number;
  readonly rate: number;
}

describe("bench --json", () => {
  it("prints a line a measurement, with the limit of the same variant", async () => {
    const found = await jsonLines("/", "bench", "matmul", "attention", "--time", "1", "--no-revectorize");
    for (const line of found) {
      expect(Object.keys(line)).toEqual(FIELDS);
      expect(line).toMatchObject({ variant: "portable", dtype: "f32", backend: "wasm", threads: 1 });
      const { bench, shape, median_seconds, rate } = line as unknown as Line;
      const work = WORK[bench.replace(/_(nt|tn)$/, "")]?.(shape) ?? 0;
      expect(rate / (work / median_seconds)).toBeCloseTo(1, 6);
    }
    const who = (bench: string) => found.filter((line) => line.bench === bench).map((line) => line.who);
    expect([who("peak"), who("bandwidth")]).toEqual([["limit"], ["limit"]]);
    const unit = (bench: string) => found.find((line) => line.bench === bench)?.unit;
    expect([unit("peak"), unit("bandwidth"), unit("matmul")]).toEqual(["GFLOP/s", "GB/s", "GFLOP/s"]);
    const shapes = (bench: string) => found.filter((line) => line.bench === bench).map((line) => line.shape);
    const squares = [192, 384, 768, 1536].map((n) => [n, n, n]);
    const layers = [
      [256, 288, 1152],
      [1024, 512, 2048],
    ];
    expect(shapes("matmul")).toEqual([...squares, ...layers]);
    expect(shapes("matmul_nt")).toEqual(layers);
    expect(shapes("matmul_tn")).toEqual(layers);
    const heads = [
      [1, 256, 8, 64],
      [1, 1024, 8, 64],
      [1, 256, 8, 8],
      [1, 256, 8, 16],
    ];
    expect(shapes("attention")).toEqual(heads);
    expect(shapes("attention+backward")).toEqual(heads);
  });

  it("names the stored type of what it decodes, and the threads", async () => {
    const found = await jsonLines("/", "bench", "decode", "--time", "1", "--threads", "2");
    const own = found.filter((line) => line.who === "oriflamme");
    expect(own[0]).toMatchObject({
      ...{ bench: "decode", dtype: "f32", threads: 2, unit: "tokens/s" },
      shape: [288, 6, 6, 6, 768, 32000, 16, 200],
    });
    for (const line of found) expect(line.threads).toBe(2);
  });
});

describe("bench", () => {
  it("prints a table with the share of the limit", async () => {
    const text = await succeed("/", "bench", "attention", "--time", "1", "--no-revectorize");
    expect(text).toMatch(/^oriflamme, portable: wasm \(.*1 thread\)\n/);
    expect(text).toMatch(/^bench +who +median +p10 to p90 +rate +of the limit$/m);
    expect(text).toMatch(/^attention 1×256×8×64 +oriflamme, portable .* GFLOP\/s +\d+ %$/m);
  });

  it("tells bad options of the backend apart from a failure", async () => {
    const result = await oriflamme("/", ["bench", "matmul", "--wasm", "relaxed", "--deterministic"]);
    expect(result).toMatchObject({ code: 2, stdout: "" });
    expectOneLine(result);
  });
});

/** A copy of the built package, with `folders` of the repository beside it. */
async function copyOfPackage(to: string, folders: readonly string[]): Promise<string> {
  await cp(join(ROOT, "dist"), join(to, "dist"), { recursive: true });
  await cp(join(ROOT, "package.json"), join(to, "package.json"));
  await symlink(join(ROOT, "node_modules"), join(to, "node_modules"));
  for (const folder of folders) {
    await mkdir(join(to, folder), { recursive: true });
    const names = await readdir(join(ROOT, folder));
    for (const name of names.filter((name) => name !== "node_modules"))
      await cp(join(ROOT, folder, name), join(to, folder, name));
  }
  return join(to, "dist/cli/main.js");
}

describe("bench --peers", () => {
  let folder = "";
  /** The package as npm installs it, and a checkout where no competitor is installed. */
  let installed = "";
  let checkout = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "oriflamme-peers-"));
    installed = await copyOfPackage(join(folder, "installed"), []);
    checkout = await copyOfPackage(join(folder, "checkout"), ["bench/peers", "bench/limit"]);
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("fails where the competitors' folder is not there", async () => {
    for (const option of [["--peers"], ["--chart", "c.svg"]]) {
      const result = await oriflamme("/", ["bench", "attention", ...option], { main: installed });
      expect(result).toMatchObject({ code: 1, stdout: "" });
      expectOneLine(result);
      expect(result.stderr).toMatch(/bench\/peers\/.* is not there: --(peers|chart) needs a checkout/);
    }
  });

  it("does without the limit there", async () => {
    const result = await oriflamme("/", ["bench", "attention", "--time", "1", "--json"], { main: installed });
    expect(result).toMatchObject({ code: 0, stderr: "" });
    expect(new Set(parseLines(result.stdout).map(({ who }) => who))).toEqual(new Set(["oriflamme"]));
  });

  /** What it says on stderr before the first line of stdout, with which the run is ended. */
  async function notesOf(...args: string[]): Promise<string[]> {
    const { stderr } = await oriflamme("/", ["bench", ...args, "--peers", "--time", "1", "--json"], {
      main: checkout,
      env: { ORIFLAMME_PYTHON: join(folder, "no-python") },
      onOutput: (_, kill) => kill("SIGTERM"),
    });
    return stderr.split("\n").slice(0, -1);
  }

  it("names who is not installed and how to install it", async () => {
    const notes = await notesOf("matmul", "decode");
    const leftOut = notes.map((note) => /^oriflamme: (\S+): left out: .+; (.+)$/.exec(note)?.slice(1));
    const install = "the competitors come with npm run bench:peers:install";
    expect(leftOut).toEqual([
      ...["onnxruntime-web", "tfjs-wasm", "jax-js", "onnxruntime-node", "llama.cpp"].map((who) => [
        who,
        install,
      ]),
      ["pytorch", "set ORIFLAMME_PYTHON to a Python that can import torch"],
    ]);
    expect(notes[0]).toContain("onnxruntime-web is not installed");
  });

  it("says which competitors have not so many threads", async () => {
    const notes = await notesOf("matmul", "--threads", "2");
    expect(notes.filter((note) => note.endsWith(": left out: it runs on one thread only"))).toHaveLength(3);
  });

  it("measures who is there, both variants of ours included", async () => {
    const args = ["bench", "attention", "--peers", "--time", "1", "--json"];
    const env = { ORIFLAMME_PYTHON: join(folder, "no-python") };
    const { code, stdout } = await oriflamme("/", args, { main: checkout, env });
    expect(code).toBe(0);
    const found = parseLines(stdout);
    for (const line of found) expect(Object.keys(line)).toEqual(FIELDS);
    for (const bench of ["peak", "bandwidth", "attention"])
      expect(found.some((line) => line.bench === bench && line.variant === "portable")).toBe(true);
    // Where this processor and Node have it.
    const variants = (who: string) =>
      new Set(found.filter((line) => line.who === who).map(({ variant }) => variant));
    for (const variant of variants("oriflamme")) expect(variants("limit")).toContain(variant);
  });

  it("says before it measures that no chart can be drawn", async () => {
    const args = ["bench", "attention", "--chart", "c.svg"];
    const result = await oriflamme(folder, args, { main: checkout });
    expect(result).toMatchObject({ code: 1, stdout: "" });
    expectOneLine(result);
    expect(result.stderr).toMatch(/@observablehq\/plot\/: .*npm run bench:peers:install/);
  });
});
