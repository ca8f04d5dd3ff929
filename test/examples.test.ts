import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

/** Runs an example on one thread, and reads the line of JSON that ends its output. */
async function lastLine(name: string, ...args: string[]): Promise<Record<string, unknown>> {
  const path = fileURLToPath(new URL(`../examples/${name}.mjs`, import.meta.url));
  const child = spawn(process.execPath, [path, "--threads", "1", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
}

/** Too little to learn anything: it shows that the examples run, and report all that they should. */
const LITTLE = ["--base-steps", "1", "--steps", "1", "--examples", "2"];
const number = expect.any(Number);

describe("examples", () => {
  it("languages: every language, on both groups of verbs", async () => {
    const { results } = await lastLine("languages", "--seeds", "1", ...LITTLE);
    const group = [{ auroc: number, flagged: number, falselyFlagged: number }];
    const language = { taught: group, new: group };
    expect(results).toEqual({ a: language, b: language, c: language, d: language });
  });

  it("fixed-pos: both places, at every number of prefilled tokens", async () => {
    const { results } = await lastLine("fixed-pos", "--seeds", "1", ...LITTLE);
    const list = [{ auroc: number, flagged: number, falselyFlagged: number }];
    const place = Object.fromEntries([0, 1, 2, 4, 8, 16].map((prefilled) => [prefilled, list]));
    expect(results).toEqual({ uniform: place, fixed: place });
  });

  it("in-context: both beginnings of the row, both classes, every context", async () => {
    const { results } = await lastLine("in-context", ...LITTLE);
    const inits = Object.entries(results as Record<string, Record<string, object>>);
    expect(inits.map(([init]) => init)).toEqual(["mean", expect.stringMatching(/^copy:/)]);
    for (const [, { mischief, errand }] of inits) {
      const contexts = Object.keys(mischief ?? {});
      expect(contexts).toHaveLength(5);
      expect(Object.keys(errand ?? {})).toEqual([...contexts, "demonstrations, no flag now"]);
    }
  });

  it("adversarial: every defence, without an attack and under both", async () => {
    const { results } = await lastLine("adversarial", "--seeds", "1", "--attack-steps", "1", ...LITTLE);
    const names = ["flagged", "falselyFlagged", "auroc", "klPerToken", "trainingSeconds"];
    const attacks = ["gcg", "adaptive-gcg"].flatMap((name) => [`${name}, flagged`, `${name}, evaded`]);
    const list = [Object.fromEntries([...names, ...attacks].map((name) => [name, number]))];
    expect(results).toEqual({ RF: list, "RF-AT, radius 0.05": list, "RF-AT, radius 0.5": list });
  });
});
