// The package as it ships in Node, Deno and Bun, each a process that must end by itself.

import { execFile, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, it } from "vitest";
import type { ScenarioResult } from "./scenario.mjs";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const PROGRAM = fileURLToPath(new URL("./process.mjs", import.meta.url));
/** Ends a process that does not end by itself, which then fails its test. */
const TIMEOUT = 60_000;

const RUNTIMES = [
  { name: "node", command: process.execPath, args: [] },
  { name: "deno", command: "deno", args: ["run", "--allow-all", "--no-lock"] },
  { name: "bun", command: "bun", args: [] },
] as const;

/** The development dependencies' binaries, else those of the machine. */
const env = { ...process.env, PATH: `${ROOT}node_modules/.bin:${process.env.PATH}`, NODE_OPTIONS: "" };

async function compute(
  { command, args }: (typeof RUNTIMES)[number],
  options: object,
  expected: number,
): Promise<ScenarioResult> {
  const { stdout, stderr } = await promisify(execFile)(
    command,
    [...args, PROGRAM, JSON.stringify(options), JSON.stringify(expected)],
    { env, cwd: ROOT, timeout: TIMEOUT },
  );
  expect(stderr).toBe("");
  return JSON.parse(stdout);
}

let expected: ScenarioResult;
beforeAll(async () => {
  expected = await compute(RUNTIMES[0], { deterministic: true, threads: 1 }, 1);
});

for (const runtime of RUNTIMES) {
  const isThere = spawnSync(runtime.command, ["--version"], { env }).status === 0;
  if (!isThere) console.warn(`processes.test.ts: ${runtime.name} is skipped: it is not installed`);
  // Deno and Bun are development dependencies that a platform may lack.
  describe.skipIf(!isThere)(`in ${runtime.name}`, () => {
    it.each([1, 2, 3])("gives the same bits on %s threads, and ends", async (threads) => {
      const result = await compute(runtime, { deterministic: true, threads }, threads);
      expect(result).toEqual({ ...expected, threads, threadsAfter: 1 });
      expect(result.elsewhere).toBe(result.product);
    });

    it("gives the same bits on 1 and 2 threads in the best build, revectorised or not", async () => {
      const alone = await compute(runtime, { threads: 1 }, 1);
      const shared = await compute(runtime, { threads: 2, revectorize: true }, 2);
      expect(shared).toEqual({ ...alone, threads: 2 });
    });

    it("ends by itself although the engine is not disposed of", async () => {
      const result = await compute(runtime, { threads: 2, deterministic: true, keep: true }, 2);
      expect(result).toEqual({ ...expected, threads: 2, threadsAfter: 2 });
    });
  });
}
