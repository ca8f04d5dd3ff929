import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { decode, encode, type WeightType } from "../../src/dtype.js";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { openGguf } from "../../src/formats/gguf.js";
import { toGgufName } from "../../src/formats/gguf-architectures.js";
import { openGgufModel } from "../../src/formats/gguf-weights.js";
import { ggufChunks, writeGguf } from "../../src/formats/gguf-write.js";
import { openModel } from "../../src/formats/load.js";
import { bytesSource } from "../../src/formats/source.js";
import { type ModelConfig, type RopeScaling, weightShapes } from "../../src/model/config.js";
import { pieces, readValues, type StoredWeight, weightOfValues } from "../../src/model/stored-weight.js";
import { q4kToF32, q6kToF32 } from "../../src/quantise-k.js";
import { Random } from "../../src/random.js";
import { f32Tensor, ggufFile, type TestFile, tinyGguf } from "./gguf-file.js";
import {
  concatenate,
  rejection,
  someWeights,
  temporaryFolder,
  tinyGpt2,
  tinyLlama,
  tinyMistral,
} from "./helpers.js";

const headed = { ...tinyLlama, hiddenSize: 12, heads: 2, kvHeads: 1, headDim: 6 };
const longrope: RopeScaling = {
  ...{ kind: "longrope", shortFactors: [1, 1.1, 1.25], longFactors: [2, 2.5, 3.1] },
  ...{ originalContextLength: 8, attentionFactor: 1.25 },
};
const fused = { fusedQkv: true, fusedMlp: true, tied: false };

const CONFIGS: Readonly<Record<string, ModelConfig>> = {
  llama: headed,
  "llama with biases": { ...headed, bias: { qkv: true, output: true, mlp: true } },
  mistral: tinyMistral,
  phi3: {
    ...{ ...headed, ...fused, architecture: "phi3", window: 7 },
    position: { kind: "rope", theta: 10000, scaling: longrope },
  },
  "phi3 that turns a part of a head": {
    ...{ ...headed, ...fused, architecture: "phi3" },
    position: { kind: "rope", theta: 500, scaling: { kind: "none" }, rotaryDim: 4 },
  },
  qwen2: { ...headed, architecture: "qwen2", bias: { qkv: true, output: false, mlp: false } },
  qwen3: { ...headed, architecture: "qwen3", headDim: 8, qkNorm: true },
  gpt2: tinyGpt2,
};

/** Weights of all places different, exact in f16. */
function sourceOf(config: ModelConfig) {
  const weights = someWeights(config);
  const shapes = weightShapes(config);
  const weight = (name: string): StoredWeight =>
    weightOfValues(shapes.get(name) ?? [], async () => weights.get(name) ?? new Float32Array());
  return { config, weight, weights };
}

async function bytesOf(config: ModelConfig, type: WeightType): Promise<Uint8Array> {
  return concatenate(ggufChunks(sourceOf(config), { type }));
}

describe("what is written is read again", () => {
  test.each(Object.entries(CONFIGS))("%s: the configuration and every bit", async (_, config) => {
    const model = await openGgufModel(bytesSource("m.gguf", await bytesOf(config, "f16")));
    expect(model.config).toEqual(config);
    for (const [name, values] of sourceOf(config).weights) {
      expect(await readValues(model.weight(name)), name).toEqual(values);
    }
    expect(() => model.weight("x")).toThrow(RangeError);
  });

  test("weights that are stored as the file is to have them go through as they are", async () => {
    const config = { ...tinyLlama, hiddenSize: 64, headDim: 32, intermediateSize: 32 };
    const { weights } = sourceOf(config);
    const shapes = weightShapes(config);
    // Blocks that no values would be rounded to: their scales are twice what the largest value asks for.
    const block = Uint8Array.from({ length: 34 }, (_, i) => (i === 0 ? 0 : i === 1 ? 0x38 : i));
    const weight = (name: string): StoredWeight => {
      const shape = shapes.get(name) ?? [];
      const isNorm = shape.length === 1;
      if (isNorm) return weightOfValues(shape, async () => weights.get(name) ?? new Float32Array());
      const rowBytes = ((shape[1] ?? 0) / 32) * 34;
      return {
        ...{ shape, dtype: "q8_0", rowsTogether: 1 },
        async read(_, __, into) {
          for (let at = 0; at < into.length; at += 34) {
            into.set(block, at);
            into[at + 33] = Math.floor(at / rowBytes);
          }
        },
      };
    };
    const file = await concatenate(ggufChunks({ config, weight }, { type: "q8_0" }));
    const model = await openGgufModel(bytesSource("m.gguf", file));
    for (const name of ["embed.weight", "layers.1.q.weight", "layers.0.k.weight", "layers.1.down.weight"]) {
      const [original, read] = [weight(name), model.weight(name)];
      expect(read.dtype).toBe("q8_0");
      for (const { first, rows, byteLength } of pieces(read)) {
        const [ours, theirs] = [new Uint8Array(byteLength), new Uint8Array(byteLength)];
        await read.read(first, rows, ours);
        await original.read(first, rows, theirs);
        expect(ours, name).toEqual(theirs);
      }
    }
  });

  test("matrices in blocks, the output in finer ones, rows of no whole blocks as f16, vectors as f32", async () => {
    const config = { ...tinyLlama, hiddenSize: 64, headDim: 32, intermediateSize: 40 };
    const typesOf = async (of: ModelConfig, type: WeightType, outputType?: WeightType) => {
      const options = { type, ...(outputType && { outputType }) };
      const file = await openGguf(bytesSource("m", await concatenate(ggufChunks(sourceOf(of), options))));
      return (name: string) => file.tensors.get(name)?.type.name;
    };
    const tied = await typesOf(config, "q4_0");
    expect(tied("token_embd.weight")).toBe("Q8_0");
    expect(tied("blk.0.attn_q.weight")).toBe("Q4_0");
    expect(tied("blk.0.ffn_down.weight")).toBe("F16");
    expect(tied("blk.0.attn_norm.weight")).toBe("F32");
    const untied = await typesOf({ ...config, tied: false }, "q4_0");
    expect([untied("token_embd.weight"), untied("output.weight")]).toEqual(["Q4_0", "Q8_0"]);
    expect((await typesOf(config, "q4_0", "q4_0"))("token_embd.weight")).toBe("Q4_0");
    expect((await typesOf(tinyGpt2, "f16"))("position_embd.weight")).toBe("F32");
  });

  test.each(["q8_0", "q4_0"] as const)("%s as the encoder has it", async (type) => {
    const config = { ...tinyLlama, hiddenSize: 64, headDim: 32, intermediateSize: 64 };
    const model = await openGgufModel(bytesSource("m.gguf", await bytesOf(config, type)));
    const name = "layers.1.k.weight";
    const values = sourceOf(config).weights.get(name) ?? new Float32Array();
    expect(await readValues(model.weight(name))).toEqual(decode(type, encode(type, values)));
  });

  test("on the disk, beside its place and then renamed", async () => {
    const path = join(await temporaryFolder(), "m.gguf");
    const progress: number[] = [];
    await writeGguf(path, sourceOf(tinyLlama), {
      ...{
        type: "f32",
        name: "tiny",
        onProgress: (written: number, total: number) => progress.push(written / total),
      },
    });
    expect(progress.at(-1)).toBe(1);
    const file = await openGguf(bytesSource("m", await readFile(path)));
    expect(file.metadata.get("general.name")).toBe("tiny");
    const model = await openModel(path);
    expect(model.config).toEqual(tinyLlama);
    await model.close();
    const before = await readFile(path);
    const broken = sourceOf(tinyLlama);
    broken.weights.set("norm.weight", new Float32Array(8).fill(Number.NaN));
    broken.weights.set("layers.1.down.weight", new Float32Array(96).fill(1e30));
    const error = await rejection(writeGguf(path, broken));
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toMatch(/^tensor 'blk\.1\.ffn_down\.weight': f16 cannot hold/);
    expect(await readFile(path)).toEqual(before);
  });
});

describe("rotary scalings", () => {
  const scaled = (scaling: RopeScaling, more: Partial<ModelConfig> = {}): ModelConfig => ({
    ...{ ...tinyLlama, hiddenSize: 128, heads: 2, headDim: 64, ...more },
    position: { kind: "rope", theta: 500000, scaling },
  });
  const llama3: RopeScaling = {
    ...{ kind: "llama3", factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalContextLength: 8192 },
  };
  const yarn: RopeScaling = {
    ...{ kind: "yarn", factor: 4, originalContextLength: 16, betaFast: 32, betaSlow: 1, truncate: true },
    attentionFactor: 0.1 * Math.log(4) + 1,
  };

  test.each<[string, ModelConfig]>([
    ["linear", scaled({ kind: "linear", factor: 2.5 })],
    ["llama3, whose parameters follow from the divisors", scaled(llama3)],
    ["yarn", scaled(yarn)],
    ["yarn with a factor of its own", scaled({ ...yarn, attentionFactor: 1.5 * (0.1 * Math.log(4) + 1) })],
  ])("%s", async (_, config) => {
    const { config: read } = await openGgufModel(bytesSource("m", await bytesOf(config, "f32")));
    if (read.position.kind !== "rope" || config.position.kind !== "rope") throw new Error("no rope");
    const [ours, theirs] = [read.position.scaling, config.position.scaling];
    for (const [key, value] of Object.entries(theirs)) {
      const found = (ours as unknown as Record<string, unknown>)[key];
      // Factors are f32 in the file.
      if (typeof value === "number") expect(found, key).toBeCloseTo(value, 5);
      else expect(found, key).toBe(value);
    }
  });

  test.each([
    [64, 32],
    [128, 8],
  ])(
    "llama3 from divisors that were computed in f32 (heads of %d, a factor of %d)",
    async (headDim, factor) => {
      // As transformers and llama.cpp's converter have it.
      const f = Math.fround;
      const divisors = Array.from({ length: headDim / 2 }, (_, i) => {
        const wavelength = f((2 * Math.PI) / f(1 / f(500000 ** f((2 * i) / headDim))));
        if (wavelength < 8192 / 4) return 1;
        if (wavelength > 8192) return factor;
        const smooth = f(f(f(8192 / wavelength) - 1) / 3);
        return f(1 / f(f(f(1 - smooth) / factor) + smooth));
      });
      const asIs: RopeScaling = {
        ...{ kind: "longrope", shortFactors: divisors, longFactors: divisors },
        ...{ originalContextLength: 16, attentionFactor: 1 },
      };
      const written = await bytesOf(scaled(asIs, { headDim, kvHeads: 2 }), "f32");
      const { config } = await openGgufModel(bytesSource("m", written));
      expect(config.position).toMatchObject({ theta: 500000, scaling: { ...llama3, factor } });
    },
  );

  test("divisors that no scaling of Llama 3 has are kept one by one", async () => {
    const tensors = [
      ...(tinyGguf.tensors ?? []),
      ["rope_freqs.weight", f32Tensor([2], (i) => 3 + i)] as const,
    ];
    const { config } = await openGgufModel(bytesSource("m", ggufFile({ ...tinyGguf, tensors }).bytes));
    expect(config.position).toEqual({
      ...{ kind: "rope", theta: 10000 },
      scaling: {
        ...{ kind: "longrope", shortFactors: [3, 4], longFactors: [3, 4] },
        ...{ originalContextLength: 16, attentionFactor: 1 },
      },
    });
    const again = await openGguf(bytesSource("m", await bytesOf(config, "f32")));
    expect(again.tensors.has("rope_freqs.weight")).toBe(true);
  });

  test.each<[string, ModelConfig, RegExp]>([
    ["dynamic", scaled({ kind: "dynamic", factor: 2, originalContextLength: 8 }), /'dynamic'/],
    ["llama3 in qwen2", scaled(llama3, { architecture: "qwen2" }), /'llama3'/],
    ["a GELU of gpt2 by erf", { ...tinyGpt2, mlp: "gelu_erf" }, /'gelu_erf'/],
    ["an architecture that llama.cpp has not", { ...tinyLlama, architecture: "x" }, /'x'/],
    ["windows in some layers", { ...tinyMistral, fullAttentionLayers: [0] }, /sliding window/],
  ])("%s is not written", async (_, config, message) => {
    const error = await rejection(bytesOf(config, "f32"));
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toMatch(message);
  });
});

describe("a model's file", () => {
  const withMetadata = (...changes: readonly NonNullable<TestFile["metadata"]>[number][]): TestFile => {
    const changed = new Set(changes.map(([key]) => key));
    return {
      ...tinyGguf,
      metadata: [...(tinyGguf.metadata ?? []).filter(([key]) => !changed.has(key)), ...changes],
    };
  };
  const withTensors = (...changes: readonly NonNullable<TestFile["tensors"]>[number][]): TestFile => {
    const changed = new Set(changes.map(([name]) => name));
    return {
      ...tinyGguf,
      tensors: [...(tinyGguf.tensors ?? []).filter(([name]) => !changed.has(name)), ...changes],
    };
  };
  const open = (file: TestFile) => openGgufModel(bytesSource("m.gguf", ggufFile(file).bytes));

  test("that nobody here wrote", async () => {
    const model = await open(tinyGguf);
    expect(model.config).toEqual({
      ...{ ...tinyLlama, vocabSize: 12, layers: 1, contextLength: 16, bosId: 1 },
      // The end of a text by its field, the end of a turn by its name.
      eosIds: [2, 9],
    });
    // Rows 0 1 2 3 of a head are in the order 0 2 1 3.
    const q = await readValues(model.weight("layers.0.q.weight"));
    expect([0, 8, 16, 24, 32, 40, 48, 56].map((at) => (q[at] ?? 0) / 8)).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
    const v = await readValues(model.weight("layers.0.v.weight"));
    expect([...v]).toEqual(Array.from({ length: 32 }, (_, i) => i));
  });

  test("in memory, in a folder and by its path, its tokenizer within", async () => {
    const { bytes } = ggufFile(tinyGguf);
    const folder = await temporaryFolder();
    await writeFile(join(folder, "m.gguf"), bytes);
    const blob = new File([bytes.slice()], "m.gguf");
    for (const input of [folder, join(folder, "m.gguf"), { "m.gguf": bytes }, [blob]]) {
      const model = await openModel(input);
      expect(model.tokenizer?.encode("ab a")).toEqual([4, 7, 8]);
      expect(model.tokenizer?.bosId).toBe(1);
      await model.close();
    }
    // Another model may have the tokenizer of this one.
    const other = await openModel({ "m.gguf": bytes }, { tokenizer: join(folder, "m.gguf") });
    expect(other.tokenizer?.vocabSize).toBe(12);
    await other.close();
  });

  const architecture = "general.architecture";
  test.each<[string, TestFile, RegExp]>([
    [
      "a missing field",
      { ...tinyGguf, metadata: [[architecture, ["string", "llama"]]] },
      /'llama\.embedding_length' is missing/,
    ],
    ["no architecture", { ...tinyGguf, metadata: [] }, /'general\.architecture' is missing/],
    [
      "a field of another type",
      withMetadata(["llama.block_count", ["string", "1"]]),
      /'llama\.block_count' must be an integer/,
    ],
    [
      "heads that do not divide the width",
      withMetadata(["llama.attention.head_count", ["u32", 3]]),
      /'llama\.attention\.head_count/,
    ],
    ["a missing tensor", { ...tinyGguf, tensors: tinyGguf.tensors?.slice(1) ?? [] }, /has no tensor/],
    [
      "a tensor of another shape",
      withTensors(["blk.0.attn_v.weight", f32Tensor([4, 8])]),
      /tensor 'blk\.0\.attn_v\.weight' has shape \(8, 4\), expected \(4, 8\)/,
    ],
    [
      "a block too many",
      withTensors(["blk.1.attn_norm.weight", f32Tensor([8])]),
      /tensor 'blk\.1\.attn_norm\.weight' has no place/,
    ],
    [
      "rotary factors of another number",
      withTensors(["rope_freqs.weight", f32Tensor([3], () => 1)]),
      /tensor 'rope_freqs\.weight' must hold 2/,
    ],
    [
      "long factors without short ones",
      withTensors(["rope_factors_long.weight", f32Tensor([2], () => 1)]),
      /no tensor 'rope_factors_short\.weight'/,
    ],
  ])("%s is refused", async (_, file, message) => {
    const error = await rejection(open(file));
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toMatch(/^m\.gguf: /);
    expect(error.message).toMatch(message);
  });

  test.each<[string, TestFile, RegExp]>(
    [
      [
        "another architecture",
        withMetadata([architecture, ["string", "mamba"]]),
        /'general\.architecture' of 'mamba'/,
      ],
      ["experts", withMetadata(["llama.expert_count", ["u32", 8]]), /'llama\.expert_count' of 8/],
      [
        "another scaling",
        withMetadata(["llama.rope.scaling.type", ["string", "su"]]),
        /'llama\.rope\.scaling\.type' of 'su'/,
      ],
      [
        "heads of another number in each layer",
        withMetadata(["llama.attention.head_count_kv", ["u32", [1]]]),
        /'llama\.attention\.head_count_kv'/,
      ],
      ["a part of a model", withMetadata(["split.count", ["u16", 2]]), /'split\.count'/],
      [
        "a type that no kernel takes, nor a decoder",
        withTensors(["output_norm.weight", { dims: [8], type: 25, data: new Uint8Array(16) }]),
        /tensor 'output_norm\.weight' is I16, expected one of F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K/,
      ],
    ].slice(0, 5) as [string, TestFile, RegExp][],
  )("%s is named, and refused", async (_, file, message) => {
    const error = await rejection(open(file));
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toMatch(message);
  });

  test("super-blocks are decoded, their rows in our order, and are to be kept as q8_0", async () => {
    const random = new Random(5);
    /** Rows of 256, a super-block each, with scales of 1/16. */
    const blocks = (rows: number, bytes: number, scales: readonly number[]) => {
      const data = Uint8Array.from({ length: rows * bytes }, () => random.below(256));
      for (let at = 0; at < data.length; at += bytes) {
        for (const place of scales) data.set([0x00, 0x2c], at + place);
      }
      return data;
    };
    const [q, embed] = [blocks(256, 144, [0, 2]), blocks(12, 210, [208])];
    const file: TestFile = {
      metadata: [
        ...(withMetadata(
          ["llama.embedding_length", ["u32", 256]],
          ["llama.attention.head_count", ["u32", 64]],
        ).metadata ?? []),
      ],
      tensors: [
        ["token_embd.weight", { dims: [256, 12], type: 14, data: embed }],
        ["blk.0.attn_norm.weight", f32Tensor([256])],
        ["blk.0.attn_q.weight", { dims: [256, 256], type: 12, data: q }],
        ["blk.0.attn_k.weight", f32Tensor([256, 4])],
        ["blk.0.attn_v.weight", f32Tensor([256, 4])],
        ["blk.0.attn_output.weight", f32Tensor([256, 256])],
        ["blk.0.ffn_norm.weight", f32Tensor([256])],
        ["blk.0.ffn_gate.weight", f32Tensor([256, 12])],
        ["blk.0.ffn_up.weight", f32Tensor([256, 12])],
        ["blk.0.ffn_down.weight", f32Tensor([12, 256])],
        ["output_norm.weight", f32Tensor([256])],
      ],
    };
    const model = await open(file);
    expect(model.weight("embed.weight")).toMatchObject({ dtype: "f32", keepAs: "q8_0" });
    expect(await readValues(model.weight("embed.weight"))).toEqual(q6kToF32(embed));
    const inFile = q4kToF32(q);
    const rows = await readValues(model.weight("layers.0.q.weight"));
    const row = (values: Float32Array, i: number) => values.subarray(i * 256, (i + 1) * 256);
    for (const [to, from] of [0, 2, 1, 3, 4, 6, 5, 7].entries())
      expect(row(rows, to)).toEqual(row(inFile, from));
  });

  test("values that are not finite are found when they are read", async () => {
    const file = withTensors(["blk.0.ffn_up.weight", f32Tensor([8, 12], (i) => (i === 20 ? Number.NaN : i))]);
    const model = await open(file);
    expect((await rejection(readValues(model.weight("layers.0.up.weight")))).message).toBe(
      "m.gguf: tensor 'blk.0.ffn_up.weight' holds NaN at index 20",
    );
  });
});

test("names of weights", () => {
  expect(toGgufName("layers.12.gate_up.weight")).toBe("blk.12.ffn_up.weight");
  expect(toGgufName("head.weight")).toBe("output.weight");
  for (const name of ["layers.0.embed.weight", "q.weight", "embed", "layers.0.toString.weight"]) {
    expect(() => toGgufName(name)).toThrow(RangeError);
  }
});
