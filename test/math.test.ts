/**
 * Accuracy of the vector functions of `assembly/` against float64, over a sample of all of f32. A test-only module
 * that imports them is built here, with the flags of scripts/build.mjs.
 */

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, it } from "vitest";
import { normalCdf } from "./ops/gelu.js";

const root = fileURLToPath(new URL("../", import.meta.url));

/** Largest relative errors, measured over every f32 (normal results) by `ALL=1`, rounded up. */
const BOUNDS = {
  exp: 2 ** -22,
  log: 2 ** -22,
  sigmoid: 2 ** -22,
  gelu: 2 ** -20,
};

const FEATURES = { baseline: [], relaxed: ["--enable", "relaxed-simd"] } as const;
type Build = keyof typeof FEATURES;

const ENTRY = `
import { exp4, log1, sigmoid4 } from "ASSEMBLY/simd";
export { gelu } from "ASSEMBLY/activation";
export function exp(out: usize, x: usize, n: u32): void {
  for (let i: usize = 0; i < <usize>n << 2; i += 16) v128.store(out + i, exp4(v128.load(x + i)));
}
export function sigmoid(out: usize, x: usize, n: u32): void {
  for (let i: usize = 0; i < <usize>n << 2; i += 16) v128.store(out + i, sigmoid4(v128.load(x + i)));
}
export function log(out: usize, x: usize, n: u32): void {
  for (let i: usize = 0; i < <usize>n << 2; i += 4) store<f32>(out + i, log1(load<f32>(x + i)));
}
`;

type Apply = (x: Float32Array) => Float32Array;

async function compile(build: Build): Promise<Record<"exp" | "log" | "sigmoid" | "gelu", Apply>> {
  const folder = await mkdtemp(join(tmpdir(), "oriflamme-math-"));
  try {
    const [entry, binary] = [join(folder, "math.ts"), join(folder, "math.wasm")];
    await writeFile(entry, ENTRY.replaceAll("ASSEMBLY", relative(folder, join(root, "assembly"))));
    const asc = join(root, "node_modules/assemblyscript/bin/asc.js");
    const flags = ["--enable", "simd", "--runtime", "stub", "--importMemory", "--noAssert", "-O3", "--converge"];
    const args = [asc, relative(root, entry), ...flags, ...FEATURES[build], "-o", binary];
    await promisify(execFile)(process.execPath, args, { cwd: root });
    return instantiate(await readFile(binary));
  } finally {
    await rm(folder, { recursive: true });
  }
}
