import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { openFiles } from "../../src/formats/files.js";
import { openHuggingFace } from "../../src/formats/hf.js";
import { huggingFaceConfig, parseHuggingFaceConfig } from "../../src/formats/hf-config.js";
import { huggingFaceFiles } from "../../src/formats/hf-write.js";
import { readJsonLines } from "../../src/formats/jsonl.js";
import { openModel } from "../../src/formats/load.js";
import { adapterFiles, readAdapter } from "../../src/formats/peft.js";
import { openSafetensors } from "../../src/formats/safetensors.js";
import { type ModelConfig, weightShapes } from "../../src/model/config.js";
import { readValues } from "../../src/model/stored-weight.js";
import { sizeOf } from "../../src/tensor.js";
import { concatenate } from "../formats/helpers.js";
import { goldenModels } from "../golden.js";
import { sharedMissing, sharedPath } from "../shared.js";

const asBytes = (content: unknown) => concatenate(content as AsyncIterable<Uint8Array>);

describe.skipIf(sharedMissing("golden"))("golden models", () => {
  test.each(goldenModels())("%s: both dialects of the configuration say the same", async (name) => {
    const read = async (file: string) => {
      const path = sharedPath("golden", name, file);
      return parseHuggingFaceConfig(await readFile(path, "utf8"), path);
    };
    const config = await read("config.json");
    expect(await read("config.transformers4.json")).toEqual(config);
    expect(name).toContain(config.architecture);
    // And so does what is written of it.
    const written = JSON.stringify(huggingFaceConfig(config));
    expect(parseHuggingFaceConfig(written, "written")).toEqual(config);
    const model = await openModel(sharedPath("golden", name));
    expect(model.config).toEqual(config);
    await model.close();
  });

  test.each(goldenModels())("%s: every weight, and the same bytes when written again", async (name) => {
    const model = await openHuggingFace(await openFiles(sharedPath("golden", name)));
    for (const [weight, shape] of weightShapes(model.config)) {
      expect((await readValues(model.weight(weight))).length, weight).toBe(sizeOf(shape));
    }
    const written = huggingFaceFiles(model.config, (name) => readValues(model.weight(name))).get(
      "model.safetensors",
    );
    const original = await readFile(sharedPath("golden", name, "model.safetensors"));
    expect(Buffer.compare(await asBytes(written), original)).toBe(0);
    await model.close();
  });

  test("golden values of integers, scalars and raw bytes", async () => {
    const file = await openSafetensors(
      await (await openFiles(sharedPath("golden", goldenModels()[0] ?? ""))).open("golden.safetensors"),
    );
    const ids = await file.readIntegers("input_ids");
    expect(ids.length).toBe(sizeOf(file.tensors.get("input_ids")?.shape ?? []));
    const vocabSize = file.tensors.get("logits")?.shape.at(-1) ?? 0;
    expect(ids.every((id) => id >= 0 && id < vocabSize)).toBe(true);
    expect((await file.read("loss")).length).toBe(1);
    await file.close();
  });
});

describe.skipIf(sharedMissing("golden", "quant"))("half-width floats", () => {
  test.each(["F16", "BF16"])("%s as gguf-py reads it", async (dtype) => {
    const { f16ToF32, bf16ToF32 } = await import("../../src/half.js");
    const file = await openSafetensors(
      await (await openFiles(sharedPath("golden", "quant"))).open("golden.safetensors"),
    );
    const raw = new Uint16Array((await file.readRaw(`${dtype}.raw`)).buffer);
    expect((dtype === "F16" ? f16ToF32 : bf16ToF32)(raw)).toEqual(await file.read(`${dtype}.values`));
    await file.close();
  });

  test.each(["F16", "BF16"])("%s as gguf-py rounds it", async (dtype) => {
    const { f32ToF16, f32ToBf16 } = await import("../../src/half.js");
    const file = await openSafetensors(
      await (await openFiles(sharedPath("golden", "quant"))).open("golden.safetensors"),
    );
    const values = await file.read("values");
    const raw = new Uint16Array((await file.readRaw(`${dtype}.raw`)).buffer);
    expect((dtype === "F16" ? f32ToF16 : f32ToBf16)(values)).toEqual(raw);
    await file.close();
  });
});

describe.skipIf(sharedMissing("golden", "redflag"))("golden adapters", () => {
  test.each(["redflag", "redflag-untied"])(
    "%s: read, and the same bytes when written again",
    async (name) => {
      const base = await openModel(sharedPath("golden", name, "base"));
      const files = await openFiles(sharedPath("golden", name, "adapter"));
      const adapter = await readAdapter(files, base.config);
      const { layers, vocabSize, hiddenSize, tied } = base.config;
      expect(adapter).toMatchObject({ rank: 4, alpha: 8, facts: null });
      expect(adapter.lora.size).toBe(7 * layers);
      expect(adapter.rows?.ids).toEqual([vocabSize]);
      expect(adapter.rows?.input.length).toBe(hiddenSize);
      expect(adapter.rows?.output === adapter.rows?.input).toBe(tied);

      const written = adapterFiles(adapter, base.config);
      const original = await readFile(sharedPath("golden", name, "adapter", "adapter_model.safetensors"));
      expect(Buffer.compare(await asBytes(written.get("adapter_model.safetensors")), original)).toBe(0);
      const settings = JSON.parse(await files.text("adapter_config.json"));
      expect(JSON.parse(written.get("adapter_config.json") as string)).toEqual(settings);
      await base.close();
    },
  );

  test("the adapter of one base does not fit another", async () => {
    const base = await openModel(sharedPath("golden", "redflag", "base"));
    await base.close();
    const files = await openFiles(sharedPath("golden", "redflag", "adapter"));
    const other: ModelConfig = { ...base.config, hiddenSize: base.config.hiddenSize * 2 };
    await expect(readAdapter(files, other)).rejects.toThrow(
      /the adapter is for another base: tensor '.*' has shape/,
    );
  });
});

const vectors = ["data", "vectors", "safetensors"];
describe.skipIf(sharedMissing(...vectors))("safetensors files of others", () => {
  test("are all read", async () => {
    const files = await openFiles(sharedPath(...vectors));
    const names = files.names.filter((name) => name.endsWith(".safetensors"));
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) {
      const file = await openSafetensors(await files.open(name));
      expect(file.tensors.size, name).toBeGreaterThan(0);
      for (const [tensor, { dtype, shape }] of file.tensors) {
        const values = /F\d/.test(dtype) ? await file.read(tensor) : await file.readIntegers(tensor);
        expect(values.length, `${name}: ${tensor}`).toBe(sizeOf(shape));
      }
      await file.close();
    }
  });
});

describe.each(["prompts", "stories"])("data sets: %s", (folder) => {
  test.skipIf(sharedMissing("data", folder))(
    "every line is an example, its onset in its response",
    async () => {
      const { names } = await openFiles(sharedPath("data", folder));
      const sets = names.filter((name) => name.endsWith(".jsonl"));
      expect(sets.length).toBeGreaterThan(0);
      for (const name of sets) {
        const path = sharedPath("data", folder, name);
        const lines = (await readFile(path, "utf8")).split("\n").filter((line) => line.trim() !== "");
        const examples = await readJsonLines(path);
        expect(examples.length, name).toBe(lines.length);
        expect(
          examples.every(({ harmful }) => typeof harmful === "boolean"),
          name,
        ).toBe(true);
      }
    },
  );
});
