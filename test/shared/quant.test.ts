import { describe, expect, it } from "vitest";
import { decode, encode, type StorageType } from "../../src/dtype.js";
import { openFiles } from "../../src/formats/files.js";
import { openSafetensors } from "../../src/formats/safetensors.js";
import { q4kToF32, q6kToF32 } from "../../src/quantise-k.js";
import { sharedMissing, sharedPath } from "../shared.js";

const NAMES: readonly (readonly [StorageType, string])[] = [
  ["f16", "F16"],
  ["bf16", "BF16"],
  ["q8_0", "Q8_0"],
  ["q4_0", "Q4_0"],
];

describe.skipIf(sharedMissing("golden", "quant"))("storage formats against gguf-py, to the bit", () => {
  it.each(NAMES)("%s", async (dtype, theirs) => {
    const files = await openFiles(sharedPath("golden", "quant", "golden.safetensors"));
    const golden = await openSafetensors(await files.open(files.main ?? ""));
    const raw = await golden.readRaw(`${theirs}.raw`);
    expect(decode(dtype, raw)).toEqual(await golden.read(`${theirs}.values`));
    expect(encode(dtype, await golden.read("values"))).toEqual(raw);
    await golden.close();
  });

  it.each([
    ["Q4_K", q4kToF32],
    ["Q6_K", q6kToF32],
  ] as const)("%s, which is only read", async (theirs, read) => {
    const files = await openFiles(sharedPath("golden", "quant", "golden.safetensors"));
    const golden = await openSafetensors(await files.open(files.main ?? ""));
    const values = await golden.read(`${theirs}.values`);
    expect(values.length).toBeGreaterThan(0);
    expect(read(await golden.readRaw(`${theirs}.raw`))).toEqual(values);
    await golden.close();
  });
});
