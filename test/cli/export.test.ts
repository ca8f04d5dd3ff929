import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { maxDifference, readGolden } from "../golden.js";
import { fail, jsonLines, succeed, workshop } from "./run.js";

const folder = workshop({ adapter: true });
const FROM = ["export", "--model", "model", "--adapter", "adapter"];

describe("export", () => {
  it("writes a folder that gives the logits of base and adapter", async () => {
    const stdout = await succeed(folder(), ...FROM, "--to", "hf", "--out", "merged");
    expect(stdout).toBe("merged: hf\n");
    const logits = async (out: string, ...args: string[]) => {
      await succeed(folder(), "logits", ...args, "--ids", "1,2,3", "--out", out);
      const file = await readGolden(join(folder(), out));
      const values = await file.floats("logits");
      await file.close();
      return values;
    };
    const apart = await logits("a.safetensors", "--model", "model", "--adapter", "adapter");
    expect(maxDifference(await logits("b.safetensors", "--model", "merged"), apart)).toBeLessThan(1e-4);
    // The flag is found in the export itself.
    const args = [
      "generate",
      "--model",
      "merged",
      "--adapter",
      "merged",
      "--prompt",
      "the",
      "--max-tokens",
      "1",
    ];
    const [first] = await jsonLines(folder(), ...args);
    expect(first?.flag).toEqual(expect.any(Number));
  });

  it("writes the adapter", async () => {
    const lines = await jsonLines(folder(), ...FROM, "--to", "peft", "--out", "copy");
    expect(lines).toEqual([{ out: "copy", to: "peft" }]);
    const name = "adapter_model.safetensors";
    const [ours, theirs] = [join(folder(), "copy", name), join(folder(), "adapter", name)];
    expect(await readFile(ours)).toEqual(await readFile(theirs));
  });

  it.each([
    [2, ["--to", "onnx", "--out", "x"], "--to"],
    [2, ["--out", "x"], "--to"],
    [2, ["--to", "hf"], "--out"],
    [2, ["--to", "hf", "--out", "x", "--type", "q4_0"], "type: hf has f32, f16, bf16, got 'q4_0'"],
    [1, ["--to", "hf", "--out", "model"], "model: is not replaced"],
    [1, ["--to", "hf", "--out", "text.txt"], "text.txt: cannot be written: it is not a folder"],
  ] as const)("says in one line what is wrong: exit %s for %s", async (code, args, message) => {
    const before = await readdir(folder());
    expect(await fail(folder(), code, ...FROM, ...args)).toContain(message);
    expect(await readdir(folder())).toEqual(before);
  });
});
