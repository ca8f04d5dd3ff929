import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { openFiles } from "../../src/formats/files.js";
import { type AdapterData, adapterFiles, readAdapter, writeAdapter } from "../../src/formats/peft.js";
import { openSafetensors } from "../../src/formats/safetensors.js";
import { type TensorData, writeSafetensors } from "../../src/formats/safetensors-write.js";
import { bytesSource } from "../../src/formats/source.js";
import { linearLayers, type ModelConfig, weightShapes } from "../../src/model/config.js";
import {
  concatenate,
  rejection,
  temporaryFolder,
  tinyGpt2,
  tinyLlama,
  tinyMistral,
  tinyPhi3,
  tinyQwen3,
} from "./helpers.js";

const LLAMA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/** Those of architectures that call them otherwise. */
const TARGETS: Readonly<Record<string, string[]>> = {
  gpt2: ["c_attn", "c_proj", "c_fc"],
  phi3: ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
};

function someAdapter(config: ModelConfig, layers = linearLayers(config)): AdapterData {
  const rank = 3;
  let next = 0;
  const fill = (size: number) => Float32Array.from({ length: size }, () => (++next % 200) / 16);
  const shapes = weightShapes(config);
  const lora = new Map(
    layers.map((layer) => {
      const [out = 0, input = 0] = shapes.get(`${layer}.weight`) ?? [];
      return [layer, { a: fill(rank * input), b: fill(out * rank) }];
    }),
  );
  const input = fill(2 * config.hiddenSize);
  const output = config.tied ? input : fill(2 * config.hiddenSize);
  const targets = TARGETS[config.architecture] ?? LLAMA_TARGETS;
  return { rank, alpha: 8, targets, lora, rows: { ids: [11, 4], input, output }, facts: { token: "<rf>" } };
}

/** The adapter's files in memory, with its settings and tensors edited. */
async function edited(
  data: AdapterData,
  config: ModelConfig,
  settings: Record<string, unknown> = {},
  edit: (tensors: Map<string, TensorData>) => void = () => {},
): Promise<Record<string, Uint8Array>> {
  const files = adapterFiles(data, config);
  const bytes = await concatenate(files.get("adapter_model.safetensors") as AsyncIterable<Uint8Array>);
  const file = await openSafetensors(bytesSource("whole", bytes));
  const tensors = new Map<string, TensorData>();
  for (const [name, { shape }] of file.tensors)
    tensors.set(name, { dtype: "F32", shape, data: await file.read(name) });
  edit(tensors);
  const json = { ...JSON.parse(files.get("adapter_config.json") as string), ...settings };
  return {
    "adapter_config.json": new TextEncoder().encode(JSON.stringify(json)),
    "adapter_model.safetensors": await concatenate(writeSafetensors(tensors)),
  };
}

const read = async (files: Parameters<typeof openFiles>[0], config: ModelConfig) =>
  readAdapter(await openFiles(files), config);

describe.each([tinyLlama, tinyMistral, tinyGpt2, tinyPhi3, tinyQwen3])("$architecture", (config) => {
  test("what is written to disk is read back", async () => {
    const folder = join(await temporaryFolder(), "adapter");
    const data = someAdapter(config);
    await writeAdapter(folder, data, config);
    expect((await readdir(folder)).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "oriflamme.json",
    ]);
    const again = await read(folder, config);
    expect(again).toEqual(data);
    expect(again.rows?.input === again.rows?.output).toBe(config.tied);
  });

  test("without rows and facts, and for some layers only", async () => {
    const some = linearLayers(config).filter((layer) => layer.startsWith("layers.1"));
    const data = { ...someAdapter(config, some), rows: null, facts: null };
    const files = await edited(data, config);
    const json = JSON.parse(new TextDecoder().decode(files["adapter_config.json"]));
    expect([json.target_modules, json.layers_to_transform]).toEqual([data.targets, [1]]);
    expect(await read(files, config)).toEqual(data);
  });
});

test.each<[ModelConfig, string[], string[]]>([
  // GPT-2 calls the last layers of attention and MLP by the same name.
  [
    tinyGpt2,
    ["layers.0.output", "layers.1.output"],
    ["transformer.h.0.attn.c_proj", "transformer.h.1.attn.c_proj"],
  ],
  [
    tinyLlama,
    ["layers.0.q", "layers.1.up"],
    ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"],
  ],
])("layers that no short name tells apart are written by full names: %#", async (config, layers, targets) => {
  const data = someAdapter(config, layers);
  const files = await edited(data, config);
  const json = JSON.parse(new TextDecoder().decode(files["adapter_config.json"]));
  expect([json.target_modules, json.layers_to_transform]).toEqual([targets, null]);
  expect(await read(files, config)).toEqual({ ...data, targets, facts: null });
});

test("the dropout of training is kept", async () => {
  const data = { ...someAdapter(tinyLlama), dropout: 0.1 };
  const files = await edited(data, tinyLlama);
  expect(JSON.parse(new TextDecoder().decode(files["adapter_config.json"])).lora_dropout).toBe(0.1);
  expect((await read(files, tinyLlama)).dropout).toBe(0.1);
  const error = await rejection(read(await edited(data, tinyLlama, { lora_dropout: 1 }), tinyLlama));
  expect(error).toBeInstanceOf(FormatError);
  expect(error.message).toMatch(/adapter_config\.json: 'lora_dropout' must be a number in \[0, 1\), got 1/);
});

test("names and settings are PEFT's", async () => {
  const names = async (config: ModelConfig) => {
    const files = adapterFiles(someAdapter(config), config);
    const bytes = await concatenate(files.get("adapter_model.safetensors") as AsyncIterable<Uint8Array>);
    const { tensors } = await openSafetensors(bytesSource("a", bytes));
    return { names: [...tensors.keys()], json: JSON.parse(files.get("adapter_config.json") as string) };
  };
  const gpt2 = await names(tinyGpt2);
  expect(gpt2.names).toContain("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight");
  expect(gpt2.names).toContain("base_model.model.transformer.wte.token_adapter.trainable_tokens_delta");
  expect(gpt2.json).toMatchObject({ fan_in_fan_out: true, trainable_token_indices: { wte: [11, 4] } });
  const mistral = await names(tinyMistral);
  expect(mistral.names).toContain("base_model.model.lm_head.token_adapter.trainable_tokens_delta");
  expect(mistral.json).toMatchObject({
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    r: 3,
    lora_alpha: 8,
    fan_in_fan_out: false,
    trainable_token_indices: { embed_tokens: [11, 4], lm_head: [11, 4] },
  });
});

test("rank-stabilised scaling becomes a larger alpha", async () => {
  const files = await edited(someAdapter(tinyLlama), tinyLlama, { use_rslora: true });
  expect((await read(files, tinyLlama)).alpha).toBeCloseTo(8 * Math.sqrt(3));
});

test("a pattern of targets takes the layers that the file holds", async () => {
  const data = someAdapter(tinyLlama, ["layers.0.q", "layers.1.q"]);
  const files = await edited(data, tinyLlama, { target_modules: ".*q_proj" });
  expect((await read(files, tinyLlama)).targets).toEqual(["q_proj"]);
});

test("a tied base takes a repeated row, and refuses another one", async () => {
  const name = "base_model.model.lm_head.token_adapter.trainable_tokens_delta";
  const data = someAdapter(tinyLlama);
  const rows = data.rows?.input ?? new Float32Array(0);
  const withHead = (values: Float32Array) =>
    edited(data, tinyLlama, {}, (tensors) =>
      tensors.set(name, { dtype: "F32", shape: [2, 8], data: values }),
    );
  expect((await read(await withHead(rows), tinyLlama)).rows).toEqual(data.rows);
  expect((await rejection(read(await withHead(rows.map((x) => x + 1)), tinyLlama))).message).toMatch(
    /ties its head/,
  );
});

test.each([
  ["peft_type", "LOHA"],
  ["task_type", "SEQ_CLS"],
  ["bias", "all"],
  ["rank_pattern", { q_proj: 4 }],
  ["alpha_pattern", { q_proj: 4 }],
  ["use_dora", true],
  ["lora_bias", true],
  ["modules_to_save", ["lm_head"]],
  ["layer_replication", [[0, 1]]],
  ["target_parameters", ["w"]],
  ["alora_invocation_tokens", [1]],
  ["init_lora_weights", "pissa"],
])("'%s' of %j is not implemented", async (name, value) => {
  const error = await rejection(
    read(await edited(someAdapter(tinyLlama), tinyLlama, { [name]: value }), tinyLlama),
  );
  expect(error).toBeInstanceOf(UnsupportedError);
  expect(error.message).toContain(`adapter_config.json: '${name}'`);
});

test.each([
  ["r", 0],
  ["r", "4"],
  ["lora_alpha", null],
  ["target_modules", null],
  ["target_modules", [1]],
  ["trainable_token_indices", { embed_tokens: [] }],
  ["trainable_token_indices", { embed_tokens: [4, 4] }],
  ["trainable_token_indices", { embed_tokens: 4 }],
])("'%s' of %j is malformed", async (name, value) => {
  const error = await rejection(
    read(await edited(someAdapter(tinyLlama), tinyLlama, { [name]: value }), tinyLlama),
  );
  expect(error).toBeInstanceOf(FormatError);
  expect(error.message).toContain(`adapter_config.json: '${name}`);
});

describe("an adapter for another base", () => {
  const llamaFiles = () => edited(someAdapter(tinyLlama), tinyLlama);
  const fails = async (files: Record<string, Uint8Array>, config: ModelConfig) => {
    const error = await rejection(read(files, config));
    expect(error).toBeInstanceOf(FormatError);
    return error.message;
  };

  test("other shapes", async () => {
    expect(await fails(await llamaFiles(), { ...tinyLlama, intermediateSize: 16 })).toBe(
      "adapter_model.safetensors: the adapter is for another base: " +
        "tensor 'base_model.model.model.layers.0.mlp.gate_proj.lora_B.weight' has shape (12, 3), expected (16, 3)",
    );
  });

  test("fewer layers, more layers, another vocabulary, another architecture", async () => {
    const files = await llamaFiles();
    expect(await fails(files, { ...tinyLlama, layers: 1 })).toMatch(
      /another base: tensor '.*layers\.1.*' has no place/,
    );
    expect(await fails(files, { ...tinyLlama, layers: 3 })).toMatch(/has no tensor '.*layers\.2/);
    expect(await fails(files, { ...tinyLlama, vocabSize: 10 })).toMatch(/another base: .*token 11/);
    expect(await fails(files, tinyGpt2)).toMatch(/another base: it trains rows of 'embed_tokens'/);
  });

  test("a base that does not tie, for an adapter that trains no head", async () => {
    const error = await rejection(read(await llamaFiles(), { ...tinyLlama, tied: false }));
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toMatch(/no 'lm_head'/);
  });
});

test("a missing factor, a NaN and a stranger are named", async () => {
  const data = someAdapter(tinyLlama);
  const name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  const broken = async (edit: (tensors: Map<string, TensorData>) => void) =>
    (await rejection(read(await edited(data, tinyLlama, {}, edit), tinyLlama))).message;
  expect(await broken((tensors) => tensors.delete(name))).toContain(`has no tensor '${name}'`);
  const nan = new Float32Array(24).fill(Number.NaN, 2, 3);
  expect(await broken((tensors) => tensors.set(name, { dtype: "F32", shape: [3, 8], data: nan }))).toContain(
    `tensor '${name}' holds NaN at index 2`,
  );
  const magnitude = name.replace("lora_A.weight", "lora_magnitude_vector");
  expect(
    await broken((tensors) => tensors.set(magnitude, { dtype: "F32", shape: [3, 8], data: nan })),
  ).toContain(`tensor '${magnitude}'`);
});

test("wrong sizes are refused before anything is written", () => {
  const data = someAdapter(tinyLlama);
  expect(() => adapterFiles({ ...data, rank: 4 }, tinyLlama)).toThrow(RangeError);
  const lora = new Map([["layers.9.q", { a: new Float32Array(1), b: new Float32Array(1) }]]);
  expect(() => adapterFiles({ ...data, lora }, tinyLlama)).toThrow(/'layers\.9\.q'/);
});
