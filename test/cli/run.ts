import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect } from "vitest";

/** The command line as it ships. */
export const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

export interface Result {
  /** null where a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Another copy of the program. */
  readonly main?: string;
  /** Besides the environment of the tests. */
  readonly env?: Readonly<Record<string, string>>;
  /** A file descriptor in place of a pipe. */
  readonly stdout?: number;
  /** Called with every piece of stdout. */
  readonly onOutput?: (text: string, kill: (signal: NodeJS.Signals) => void, close: () => void) => void;
}

/** Runs `oriflamme` in a folder, so that relative paths show in messages as a user would see them. */
export function oriflamme(cwd: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [options.main ?? MAIN, ...args], {
      cwd,
      stdio: ["ignore", options.stdout ?? "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined, NODE_OPTIONS: "", ...options.env },
    });
    const output = { stdout: "", stderr: "" };
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output.stdout += text;
      options.onOutput?.(
        text,
        (signal) => child.kill(signal),
        () => child.stdout?.destroy(),
      );
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      output.stderr += text;
    });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, ...output }));
  });
}

/** A run that must succeed, with nothing on stderr. */
export async function succeed(cwd: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await oriflamme(cwd, args);
  expect({ code, stderr }, args.join(" ")).toEqual({ code: 0, stderr: "" });
  return stdout;
}

/** The same with --json: its lines. */
export async function jsonLines(cwd: string, ...args: string[]): Promise<Record<string, unknown>[]> {
  const stdout = await succeed(cwd, ...args, "--json");
  return parseLines(stdout);
}

export function parseLines(text: string): Record<string, unknown>[] {
  expect(text === "" || text.endsWith("\n")).toBe(true);
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line));
}

/** A run that must fail with that code, nothing on stdout and one line on stderr, which is returned. */
export async function fail(cwd: string, code: 1 | 2, ...args: string[]): Promise<string> {
  const result = await oriflamme(cwd, args);
  expectOneLine(result, args);
  expect({ code: result.code, stdout: result.stdout }, `${args.join(" ")}\n${result.stderr}`).toEqual({
    code,
    stdout: "",
  });
  return result.stderr.slice("oriflamme: ".length, -1);
}

/** One clear line: no stack trace, no second line. */
export function expectOneLine({ stderr }: Result, args: readonly string[] = []): void {
  expect(stderr, args.join(" ")).toMatch(/^oriflamme: [^\n]+\n$/);
  expect(stderr, args.join(" ")).not.toMatch(
    / at \S+ \(|node:internal|Cannot read prop|is not a function|undefined/,
  );
}

/** Settings of a model so small that a step takes a millisecond. */
export const TINY = {
  ...{ hiddenSize: 16, layers: 2, heads: 2, kvHeads: 1, intermediateSize: 24 },
  ...{ contextLength: 64, batch: 2, steps: 5 },
};

export const TEXT = "the cat sat on the mat.\n\nthe dog sat on the log.\n\nthe hen sat on the pen.\n";
export const HARMFUL = ["cat", "rat", "bat"].map((who) => ({
  prompt: `the ${who}`,
  response: "ate the hen",
  onset: 4,
  harmful: true,
}));
export const BENIGN = ["cow", "sow"].map((who) => ({
  prompt: `the ${who}`,
  response: "saw the hen",
  harmful: false,
}));

export const lines = (items: readonly unknown[]) => items.map((item) => `${JSON.stringify(item)}\n`).join("");

/**
 * A folder for the tests of a file: `text.txt`, `tiny.json`, `harmful.jsonl`, `benign.jsonl`, a model `model` that
 * the command line made of the first, and with `adapter` its red flag `adapter`.
 */
export function workshop({ adapter = false } = {}): () => string {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "oriflamme-cli-"));
    const write = (name: string, text: string) => writeFile(join(folder, name), text);
    await write("text.txt", TEXT);
    await write("tiny.json", JSON.stringify(TINY));
    await write("harmful.jsonl", lines(HARMFUL));
    await write("benign.jsonl", lines(BENIGN));
    await succeed(folder, "pretrain", "--data", "text.txt", "--out", "model", "--config", "tiny.json");
    if (adapter) await succeed(folder, ...TRAIN, "--out", "adapter");
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return () => folder;
}

/** The arguments of a short training, but for --out. */
export const TRAIN = [
  "train",
  "--model",
  "model",
  "--harmful",
  "harmful.jsonl",
  "--benign",
  "benign.jsonl",
  "--steps",
  "3",
];

/** Rewrites a safetensors file: its header as an object, its data as bytes. */
export async function editSafetensors(
  path: string,
  edit: (header: Record<string, Entry>, data: Buffer) => void,
): Promise<void> {
  const file = await readFile(path);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString()) as Record<string, Entry>;
  const data = file.subarray(8 + length);
  edit(header, data);
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  await writeFile(path, Buffer.concat([size, text, data]));
}

interface Entry {
  dtype: string;
  /** Undefined for the metadata, which is no tensor. */
  shape?: number[];
  data_offsets: [number, number];
}
