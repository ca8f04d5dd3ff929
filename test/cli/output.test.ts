import { execFile } from "node:child_process";
import { mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  expectOneLine,
  fail,
  lines,
  oriflamme,
  parseLines,
  type RunOptions,
  succeed,
  TRAIN,
  workshop,
} from "./run.js";

const folder = workshop({ adapter: true });
const run = promisify(execFile);

const PRETRAIN = ["pretrain", "--data", "text.txt", "--config", "tiny.json", "--out"];
const LOGITS = ["logits", "--model", "model", "--ids", "1,2,3", "--out"];
const SCORE = ["score", "--model", "model", "--adapter", "adapter", "--data", "harmful.jsonl", "--out"];

const names = async (...parts: string[]) => (await readdir(join(folder(), ...parts))).sort();

describe("the place of the result", () => {
  it("in a missing folder: a file fails, a folder is made", async () => {
    for (const args of [LOGITS, SCORE])
      expect(await fail(folder(), 1, ...args, "none/o")).toMatch(/^none\/o: cannot be written/);
    expect(await names()).not.toContain("none");
    await succeed(folder(), ...PRETRAIN, "made/for/it");
    expect(await names("made/for/it")).toContain("model.safetensors");
  });

  it("that is a file where a folder must be, said before any work", async () => {
    await writeFile(join(folder(), "taken"), "mine");
    for (const args of [
      [...PRETRAIN, "taken"],
      [...TRAIN, "--out", "taken"],
    ]) {
      expect(await fail(folder(), 1, ...args, "--json")).toBe("taken: cannot be written: it is not a folder");
    }
    expect(await readFile(join(folder(), "taken"), "utf8")).toBe("mine");
    expect(await fail(folder(), 1, ...PRETRAIN, "taken/under")).toBe(
      "taken/under: cannot be written: it lies in a file",
    );
  });

  it("that is a folder where a file must be", async () => {
    await mkdir(join(folder(), "solid"));
    for (const args of [LOGITS, SCORE])
      expect(await fail(folder(), 1, ...args, "solid")).toMatch(/^solid: .*it is a folder/);
    expect(await names("solid")).toEqual([]);
  });
});

describe("a full device", () => {
  it("as the file", async () => {
    for (const args of [LOGITS, SCORE]) {
      expect(await fail(folder(), 1, ...args, "/dev/full")).toMatch(
        /^\/dev\/full: cannot be written: ENOSPC/,
      );
    }
  });

  it("as stdout", async () => {
    const full = await open("/dev/full", "w");
    for (const args of [
      ["generate", "--model", "model", "--prompt", "a", "--json"],
      ["bench", "--help"],
      [...LOGITS, "l"],
    ]) {
      const result = await oriflamme(folder(), args, { stdout: full.fd });
      expect(result.code).toBe(1);
      expectOneLine(result, args);
      expect(result.stderr).toMatch(/^oriflamme: stdout: ENOSPC/);
    }
    await full.close();
  });
});

/** A file system of a few pages, or the reason why there is none. */
async function mountSmall(path: string): Promise<string | null> {
  try {
    await mkdir(path);
    await run("mount", ["-t", "tmpfs", "-o", "size=16k", "none", path]);
    return null;
  } catch (error) {
    return String(error);
  }
}

describe("a full disk", () => {
  const path = () => join(folder(), "small");
  let trouble: string | null;
  beforeAll(async () => {
    trouble = await mountSmall(path());
    if (trouble !== null)
      console.warn(`skipped: a tmpfs cannot be mounted, only /dev/full is tried: ${trouble}`);
  });
  afterAll(async () => {
    if (trouble === null) await run("umount", [path()]);
  });

  it.for([
    ["pretrain", () => [...PRETRAIN, "small/out"]],
    ["train", () => [...TRAIN, "--out", "small/out"]],
    [
      "logits",
      () => [...LOGITS.map((arg) => (arg === "1,2,3" ? Array(40).fill(1).join() : arg)), "small/out"],
    ],
    ["score", () => [...SCORE.map((arg) => (arg === "harmful.jsonl" ? "many.jsonl" : arg)), "small/out"]],
  ] as const)("leaves nothing of what %s began", async ([_, args], { skip }) => {
    skip(trouble !== null, "no tmpfs");
    const many = Array.from({ length: 300 }, (_, i) => ({ prompt: `a${i}`, response: "b" }));
    await writeFile(join(folder(), "many.jsonl"), lines(many));
    expect(await fail(folder(), 1, ...args())).toMatch(
      /^small\/out\S*: cannot be written: ENOSPC: no space left on device$/,
    );
    expect(await names("small")).toEqual([]);
  });

  it("leaves an older result whole", async ({ skip }) => {
    skip(trouble !== null, "no tmpfs");
    await mkdir(join(folder(), "small/old"));
    const older = "adapter_config.json";
    await writeFile(join(folder(), "small/old", older), "older");
    await writeFile(join(folder(), "small/l"), "older");
    await fail(folder(), 1, ...TRAIN, "--out", "small/old");
    await fail(
      folder(),
      1,
      ...LOGITS.map((arg) => (arg === "1,2,3" ? Array(40).fill(1).join() : arg)),
      "small/l",
    );
    expect(await names("small")).toEqual(["l", "old"]);
    expect(await names("small/old")).toEqual([older]);
    expect(await readFile(join(folder(), "small/old", older), "utf8")).toBe("older");
    expect(await readFile(join(folder(), "small/l"), "utf8")).toBe("older");
  });
});

describe("a run that is ended from outside", () => {
  /** Sends the signal with the first line, and only then: a second one would end the process at once. */
  const sending = (signal: NodeJS.Signals): RunOptions => {
    let isSent = false;
    return {
      onOutput(_, kill) {
        if (!isSent) kill(signal);
        isSent = true;
      },
    };
  };
  const endless = ["--steps", "1000000", "--json"];

  it.each<[NodeJS.Signals, number, string[]]>([
    ["SIGINT", 130, [...PRETRAIN, "int", ...endless]],
    ["SIGTERM", 143, [...TRAIN, "--out", "term", ...endless]],
  ])("by %s ends after a step, keeps it, and says how to go on", async (signal, code, args) => {
    const before = await names();
    const result = await oriflamme(folder(), args, sending(signal));
    expect(result.code).toBe(code);
    const lines = parseLines(result.stdout);
    const kept = `${signal.slice(3).toLowerCase()}.checkpoint`;
    expect(result.stderr).toBe(
      `oriflamme: stopped by ${signal} after step ${lines.length}; ` +
        `the same command with --resume goes on from ${kept}\n`,
    );
    expect((await names()).filter((name) => !before.includes(name))).toEqual([kept]);
    expect(await names(kept)).toEqual(["metrics.jsonl", "state.safetensors"]);
    expect(parseLines(await readFile(join(folder(), kept, "metrics.jsonl"), "utf8"))).toEqual(lines);
  });

  it("by SIGINT leaves nothing where nothing is to be kept", async () => {
    const before = await names();
    const args = [...PRETRAIN, "killed", ...endless, "--checkpoint-every", "0"];
    const result = await oriflamme(folder(), args, sending("SIGINT"));
    expect(result.code).toBe(130);
    expect(result.stderr).toMatch(/^oriflamme: stopped by SIGINT after step \d+; nothing was kept\n$/);
    expect(await names()).toEqual(before);
  });

  it("by SIGKILL leaves no result", async () => {
    const before = await names();
    const args = [...TRAIN, "--out", "killed", ...endless];
    const result = await oriflamme(folder(), args, sending("SIGKILL"));
    expect(result.signal).toBe("SIGKILL");
    expect((await names()).filter((name) => !before.includes(name))).toEqual(["killed.checkpoint"]);
  });
});
