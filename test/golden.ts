import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { openFiles } from "../src/formats/files.js";
import { openSafetensors } from "../src/formats/safetensors.js";
import { sharedPath } from "./shared.js";

/** The names of the folders of golden values that hold a model: one for every architecture, or shape of one. */
export function goldenModels(): string[] {
  const root = sharedPath("golden");
  if (!existsSync(root)) return [];
  return readdirSync(root)
    .filter((name) =>
      ["config.json", "golden.safetensors"].every((file) => existsSync(join(root, name, file))),
    )
    .sort();
}

/** Reads tensors of a safetensors file by name. */
export async function readGolden(path: string) {
  const files = await openFiles(path);
  const file = await openSafetensors(await files.open(files.main ?? ""));
  return {
    names: [...file.tensors.keys()],
    floats: (name: string) => file.read(name),
    integers: async (name: string) => Array.from(await file.readIntegers(name), Number),
    close: () => file.close(),
  };
}

/** The largest difference of two rows of numbers of one length. */
export function maxDifference(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (found.length !== expected.length)
    throw new Error(`${found.length} values, expected ${expected.length}`);
  let most = 0;
  for (let i = 0; i < found.length; i++) {
    const difference = Math.abs((found[i] as number) - (expected[i] as number));
    // Math.max keeps NaN, so that it fails whatever it is compared with.
    most = Math.max(most, difference);
  }
  return most;
}

/** max|Δ| / max|g|: how gradients are compared. */
export function relativeDifference(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i] as number));
  return maxDifference(found, expected) / largest;
}
