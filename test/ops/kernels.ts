import { readdir } from "node:fs/promises";
import type { Kernel } from "../../src/kernel.js";
import * as tape from "../../src/tape.js";

function isKernel(value: unknown): value is Kernel {
  return (
    typeof value === "object" && value !== null && "writes" in value && "grid" in value && "range" in value
  );
}

/** Every kernel that `src/ops` and the tape declare, in the order of their names. */
export async function declaredKernels(): Promise<Kernel[]> {
  const folder = new URL("../../src/ops/", import.meta.url);
  const files = (await readdir(folder)).filter((name) => name.endsWith(".ts"));
  const modules: object[] = await Promise.all(files.map((name) => import(new URL(name, folder).href)));
  const kernels = new Set([tape, ...modules].flatMap((module) => Object.values(module)).filter(isKernel));
  return [...kernels].sort((a, b) => (a.name < b.name ? -1 : 1));
}
