import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { BENIGN, fail, HARMFUL, lines, oriflamme, parseLines, TRAIN, workshop } from "./run.js";

const folder = workshop();
const KILL_TEST = fileURLToPath(new URL("../../scripts/kill-test.mjs", import.meta.url));

const adapterOf = async (out: string) =>
  createHash("sha256")
    .update(await readFile(join(folder(), out, "adapter_model.safetensors")))
    .digest("hex");

/** The metrics of a run without its speed. */
async function metricsOf(out: string): Promise<unknown[]> {
  const steps = parseLines(await readFile(join(folder(), out, "metrics.jsonl"), "utf8"));
  return steps.map(({ tokens_per_second: _, ...step }) => step);
}

/** A training that takes long enough for a signal to reach it. */
const LONG = [...TRAIN, "--deterministic", "--steps", "80"];

/** Begins `LONG`, and stops it by SIGTERM once the first step is told. */
async function stopped(out: string, ...more: string[]): Promise<void> {
  let isSent = false;
  const args = [...LONG, "--out", out, "--json", "--checkpoint-every", "1", ...more];
  const { code } = await oriflamme(folder(), args, {
    onOutput(_, kill) {
      if (!isSent) kill("SIGTERM");
      isSent = true;
    },
  });
  expect(code).toBe(143);
}

describe("--resume", () => {
  it("gives the bytes of a run that was never stopped, on any number of threads", async () => {
    const train = (out: string, ...more: string[]) => oriflamme(folder(), [...LONG, "--out", out, ...more]);
    expect(await train("whole", "--threads", "1")).toMatchObject({ code: 0, stderr: "" });
    for (const threads of ["1", "2"]) {
      await stopped("resumed", "--threads", threads);
      const { code, stderr } = await train("resumed", "--resume", "--threads", threads === "1" ? "2" : "1");
      expect(code).toBe(0);
      expect(stderr).toMatch(/^oriflamme: going on after step \d+, from resumed\.checkpoint\n$/);
      expect(await adapterOf("resumed")).toBe(await adapterOf("whole"));
      expect(await metricsOf("resumed")).toEqual(await metricsOf("whole"));
      expect(await readdir(folder())).not.toContain("resumed.checkpoint");
    }
  });

  it("begins where there is nothing to go on from, and says so", async () => {
    const args = [...TRAIN, "--out", "anew", "--resume"];
    expect(await oriflamme(folder(), args)).toMatchObject({
      code: 0,
      stderr: "oriflamme: anew.checkpoint holds no checkpoint: beginning anew\n",
    });
    expect(await metricsOf("anew")).toHaveLength(3);
  });

  it("refuses the checkpoint of another run, and a run that would overwrite one is refused too", async () => {
    await stopped("mine", "--seed", "1");
    const before = await readFile(join(folder(), "mine.checkpoint/state.safetensors"));
    const again = [...TRAIN, "--out", "mine", "--steps", "80"];
    const path = "mine.checkpoint/state.safetensors: is of another run: ";
    expect(await fail(folder(), 1, ...again, "--resume", "--seed", "1")).toBe(
      `${path}deterministic was true and is false`,
    );
    const same = [...again, "--deterministic", "--seed", "1"];
    expect(await fail(folder(), 1, ...same, "--resume", "--steps", "9", "--seed", "2")).toBe(
      `${path}steps was 80 and is 9; seed was 1 and is 2`,
    );
    await writeFile(join(folder(), "other.jsonl"), lines([...BENIGN].reverse()));
    expect(await fail(folder(), 1, ...same, "--resume", "--benign", "other.jsonl")).toBe(
      `${path}benign data differ`,
    );
    expect(await fail(folder(), 1, ...same, "--resume", "--dtype", "q8_0")).toContain(
      `${path}the model's weights differ`,
    );
    expect(await fail(folder(), 1, ...same)).toBe(
      "mine.checkpoint: holds a checkpoint: set resume (--resume) to go on from it, or remove the folder",
    );
    expect(await readFile(join(folder(), "mine.checkpoint/state.safetensors"))).toEqual(before);
  });
});

describe("a run that diverges", () => {
  it("names step, term and examples, and leaves its last checkpoint", async () => {
    await writeFile(join(folder(), "wild.json"), JSON.stringify({ lr: 1e30, clip: 1e30, warmup: 0 }));
    const wild = ["--config", "wild.json", "--steps", "9", "--checkpoint-every", "1"];
    const message = await fail(folder(), 1, ...TRAIN, "--out", "wild", ...wild);
    const examples = `\\(harmful examples( [0-${HARMFUL.length - 1}],){3} ?.*, benign examples .*, counted from 0\\)`;
    const kept = "; wild\\.checkpoint holds the run after step (\\d)$";
    const found = new RegExp(`^step (\\d).*: .*(NaN|Infinity) ${examples}${kept}`).exec(message);
    expect(found, message).not.toBeNull();
    expect(Number(found?.at(-1))).toBe(Number(found?.[1]) - 1);
    expect(await readdir(join(folder(), "wild.checkpoint"))).toEqual(["metrics.jsonl", "state.safetensors"]);
    expect(await readdir(folder())).not.toContain("wild");
  });

  it("leaves nothing where it had no checkpoint yet", async () => {
    const args = [...TRAIN, "--out", "soon", "--config", "wild.json", "--steps", "9"];
    expect(await fail(folder(), 1, ...args)).toMatch(/^step \d.* \(harmful examples .*\)$/);
    expect((await readdir(folder())).filter((name) => name.startsWith("soon"))).toEqual([]);
  });
});

it("SIGKILL at any moment costs no bit: five deaths", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...[KILL_TEST, "--kills", "5", "--steps", "20", "--seed", "3"],
  ]);
  expect(stdout.trimEnd().split("\n").at(-1)).toMatch(/^5 deaths in .*; every result as undisturbed$/);
});
