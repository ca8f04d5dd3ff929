import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { type ExportOptions, exportFiles, exportModel } from "../../src/flag/export.js";
import { loadRedFlag, saveRedFlag } from "../../src/flag/store.js";
import { addRedFlag, type FlaggedModel, type RedFlagOptions } from "../../src/flag/vocab.js";
import { byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { writeHuggingFace } from "../../src/formats/hf-write.js";
import { openModel } from "../../src/formats/load.js";
import { loadModel } from "../../src/formats/load-model.js";
import { linearLayers, type ModelConfig } from "../../src/model/config.js";
import type { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { applyChat } from "../../src/tokenizer.js";
import { temporaryFolder } from "../formats/helpers.js";
import { maxDifference } from "../golden.js";
import { baseline, gpt2, llama, logitsOf, loudModel, mistral } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const IDS = [5, 100, 7, 255, 31, 5];
/** Sums of f32 in another order: merged weights are rounded once, additions are computed beside them. */
const LOGITS = 1e-4;

const CHAT = "<bos>{% for m in messages %}{{ m.role }}: {{ m.content }}{{ '<eos>' }}{% endfor %}";

/** A folder of a base as others publish them, with files that are to go along. */
async function baseFolder(config: ModelConfig): Promise<string> {
  const folder = join(await temporaryFolder(), "base");
  const model = await loudModel(backend, config);
  await writeHuggingFace(folder, config, (name) => model.weight(name).read(), byteTokenizerFiles());
  model.dispose();
  const text = await readFile(join(folder, "config.json"), "utf8");
  await writeFile(join(folder, "config.json"), text.replace("{", '{ "_name_or_path": "x", "a_float": 32.0,'));
  await writeFile(join(folder, "chat_template.jinja"), CHAT);
  await writeFile(join(folder, "generation_config.json"), '{"temperature": 0.60, "eos_token_id": [3, 4]}');
  await writeFile(join(folder, "LICENSE"), "as you like");
  await writeFile(join(folder, "README.md"), "of the base");
  return folder;
}

/** Trains nothing, but leaves values everywhere that training would have changed. */
async function shake(flagged: FlaggedModel, full = false): Promise<FlaggedModel> {
  const random = new Random(11);
  const noise = (length: number, scale: number) =>
    Float32Array.from({ length }, () => scale * random.normal());
  if (full) {
    const { parameters } = await flagged.attachFull();
    for (const [, tensor] of parameters.entries()) {
      const values = await tensor.read();
      tensor.write(values.map((value) => value + 0.1 * random.normal()));
    }
    return flagged;
  }
  const targets = linearLayers(flagged.model.config).filter((name) => !name.endsWith("up"));
  const { parameters } = flagged.attach({ rank: 3, alpha: 5, targets }, 1);
  for (const [, tensor] of parameters.entries()) tensor.write(noise(tensor.size, 0.3));
  return flagged;
}

interface Made {
  readonly base: string;
  readonly adapter: string;
  readonly model: Model;
  readonly flagged: FlaggedModel;
  readonly logits: Float32Array;
}

/** A base with a shaken flag over it, saved. */
async function made(config: ModelConfig, flag: RedFlagOptions = {}, full = false): Promise<Made> {
  const base = await baseFolder(config);
  const model = await loadModel(base, { backend });
  const flagged = await shake(await addRedFlag(model, flag), full);
  const adapter = join(base, "../adapter");
  await saveRedFlag(flagged, adapter);
  const logits = await logitsOf(model, IDS, { overlay: flagged.overlay });
  return { base, adapter, model, flagged, logits };
}

const json = async (...path: string[]) => JSON.parse(await readFile(join(...path), "utf8"));
const vocabulary = { vocabSize: 258 };

describe.each([
  ["llama, tied", { ...llama, ...vocabulary }, false],
  ["mistral, untied", { ...mistral, ...vocabulary }, false],
  ["gpt2, transposed", { ...gpt2, ...vocabulary }, false],
  ["mistral, all weights trained", { ...mistral, ...vocabulary }, true],
] as const)("%s", (_, config, full) => {
  it("exported from files or from memory is a model with the flag in it", async () => {
    const { base, adapter, flagged, logits } = await made(config, {}, full);
    const [files, memory] = [join(base, "../files"), join(base, "../memory")];
    await exportFiles({ model: base, adapter }, files, { to: "hf" });
    await exportModel(flagged, memory, { to: "hf", base });
    const model = await loadModel(files, { backend });
    expect(model.config.vocabSize).toBe(259);
    expect(maxDifference(await logitsOf(model, IDS), logits)).toBeLessThan(LOGITS);
    expect(model.tokenizer?.tokenId("<rf>")).toBe(258);
    model.dispose();
    const names = (await readdir(files)).sort();
    expect((await readdir(memory)).sort()).toEqual(names);
    for (const name of names) {
      expect(await readFile(join(memory, name)), name).toEqual(await readFile(join(files, name)));
    }
    // What the base has beside its weights comes along; its description is not the export's.
    expect(names).toEqual(expect.arrayContaining(["LICENSE", "chat_template.jinja", "oriflamme.json"]));
    expect(names).not.toContain("README.md");
    expect(await readFile(join(files, "generation_config.json"), "utf8")).toContain("0.60");
    const text = await readFile(join(files, "config.json"), "utf8");
    expect(text).toContain('"a_float": 32.0');
    expect(JSON.parse(text)).toMatchObject({ _name_or_path: "x", vocab_size: 259, dtype: "float32" });
  });
});

describe("a GGUF file", () => {
  it.each([
    ["llama", { ...llama, ...vocabulary }, {}],
    ["gpt2", { ...gpt2, vocabSize: 264 }, { categories: ["a", "other"] }],
  ] as const)("%s: is a model with the flag in it, and its token", async (_, config, flag) => {
    const { base, adapter, flagged, logits } = await made(config, flag);
    const [files, memory] = [join(base, "../files.gguf"), join(base, "../memory.gguf")];
    await exportFiles({ model: base, adapter }, files, { to: "gguf", type: "f32" });
    await exportModel(flagged, memory, { to: "gguf", type: "f32", base });
    expect(await readFile(memory)).toEqual(await readFile(files));
    const model = await loadModel(files, { backend });
    const reloaded = await loadRedFlag(model, files);
    expect([reloaded.flagIds, reloaded.categories]).toEqual([flagged.flagIds, flagged.categories]);
    expect(reloaded.flagTexts.map((text) => model.tokenizer?.tokenId(text))).toEqual(flagged.flagIds);
    expect(model.tokenizer?.encode("<rf>")).toEqual([...Buffer.from("<rf>")]);
    expect(maxDifference(await logitsOf(model, IDS), logits)).toBeLessThan(LOGITS);
    // The template comes along, and what a message says stays text in it.
    const chat = [{ role: "user", content: "<rf><eos>" }];
    const tokenizers = [model.tokenizer, flagged.model.tokenizer].filter((tokenizer) => tokenizer !== null);
    const expected = [256, ...Buffer.from("user: <rf><eos>"), 257];
    expect(tokenizers.map((tokenizer) => applyChat(tokenizer, chat))).toEqual([expected, expected]);
    model.dispose();
    // Again over itself, and never over a file that is another's.
    await exportFiles({ model: base, adapter }, files, { to: "gguf" });
    const other = join(base, "../other.gguf");
    await writeFile(other, await readFile(join(base, "LICENSE")));
    await expect(exportFiles({ model: base }, other, { to: "gguf" })).rejects.toThrow("other.gguf");
    await expect(exportFiles({ model: base }, base, { to: "gguf" })).rejects.toThrow("it is a folder");
    expect(await readFile(other, "utf8")).toBe("as you like");

    // From the file a folder: without a tokenizer, as the file has no tokenizer.json.
    const folder = join(base, "../folder");
    await writeFile(join(base, "../config.json"), "of another model");
    await exportFiles({ model: files }, folder, { to: "hf", type: "f32" });
    expect((await readdir(folder)).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "oriflamme.json",
    ]);
  });
});

describe("the flag", () => {
  it("of each category has a token, and all are found again in the export", async () => {
    const config = { ...mistral, ...vocabulary };
    const { base, adapter, logits } = await made(config, { categories: ["a", "other"] });
    const out = join(base, "../out");
    await exportFiles({ model: base, adapter }, out, { to: "hf" });
    const model = await loadModel(out, { backend });
    expect(["<rf:a>", "<rf:other>"].map((name) => model.tokenizer?.tokenId(name))).toEqual([258, 259]);
    const flagged = await loadRedFlag(model, out);
    expect([flagged.flagIds, flagged.categories]).toEqual([
      [258, 259],
      ["a", "other"],
    ]);
    const found = await logitsOf(model, IDS, { overlay: flagged.overlay });
    expect(maxDifference(found, logits)).toBeLessThan(LOGITS);
  });

  it("takes the next row of a padded matrix, which does not grow", async () => {
    const { base, adapter, logits } = await made({ ...llama, vocabSize: 264 });
    const out = join(base, "../out");
    await exportFiles({ model: base, adapter }, out, { to: "hf" });
    const model = await loadModel(out, { backend });
    expect([model.config.vocabSize, model.tokenizer?.tokenId("<rf>")]).toEqual([264, 258]);
    expect(maxDifference(await logitsOf(model, IDS), logits)).toBeLessThan(LOGITS);
  });

  it("takes the name of a token that it reuses", async () => {
    const { base, adapter, logits } = await made({ ...llama, ...vocabulary }, { reuse: "<eos>" });
    const out = join(base, "../out");
    await exportFiles({ model: base, adapter }, out, { to: "hf" });
    const model = await loadModel(out, { backend });
    expect(model.config.vocabSize).toBe(258);
    expect([model.tokenizer?.tokenId("<rf>"), model.tokenizer?.tokenId("<eos>")]).toEqual([257, undefined]);
    expect(maxDifference(await logitsOf(model, IDS), logits)).toBeLessThan(LOGITS);
  });

  it("is none in a model without, whose files stay as they are", async () => {
    const base = await baseFolder({ ...llama, ...vocabulary });
    const out = join(base, "../out");
    await exportFiles({ model: base }, out, { to: "hf" });
    for (const name of ["tokenizer.json", "tokenizer_config.json", "model.safetensors"]) {
      expect(await readFile(join(out, name)), name).toEqual(await readFile(join(base, name)));
    }
  });
});

describe("types and shards", () => {
  it("are written with an index, and read again", async () => {
    const { base, adapter, logits } = await made({ ...mistral, ...vocabulary });
    const out = join(base, "../out");
    const progress: number[][] = [];
    const onProgress: ExportOptions["onProgress"] = (...at) => progress.push(at);
    // The embedding is larger than a shard.
    await exportFiles({ model: base, adapter }, out, { to: "hf", shardBytes: 10_000, onProgress });
    const index = await json(out, "model.safetensors.index.json");
    const shards = new Set(Object.values(index.weight_map));
    expect([...shards].sort()).toEqual(
      (await readdir(out)).filter((name) => /^model-.*s$/.test(name)).sort(),
    );
    expect(shards.size).toBeGreaterThan(3);
    expect(progress.at(-1)).toEqual([index.metadata.total_size, index.metadata.total_size]);
    const model = await loadModel(out, { backend });
    expect(maxDifference(await logitsOf(model, IDS), logits)).toBeLessThan(LOGITS);

    // Over it one file: the shards must not lie beside it.
    await exportFiles({ model: base, adapter }, out, { to: "hf", type: "bf16" });
    const weights = (await readdir(out)).filter((name) => name.startsWith("model"));
    expect(weights).toEqual(["model.safetensors"]);
    expect(await json(out, "config.json")).toMatchObject({ dtype: "bfloat16", torch_dtype: "bfloat16" });
    const half = await loadModel(out, { backend });
    const exact = await model.weight("layers.0.q.weight").read();
    const rounded = await half.weight("layers.0.q.weight").read();
    // 8 bits of mantissa.
    for (const [i, value] of exact.entries())
      expect(Math.abs((rounded[i] as number) - value)).toBeLessThanOrEqual(Math.abs(value) * 2 ** -8);
  });

  it("stay those of the base where nothing is said", async () => {
    const base = await baseFolder({ ...llama, ...vocabulary });
    const out = join(base, "../out");
    await exportFiles({ model: base }, out, { to: "hf", type: "bf16" });
    await exportFiles({ model: out }, join(base, "../again"), { to: "hf" });
    const { weight, close } = await openModel(join(base, "../again"));
    expect([weight("embed.weight").dtype, weight("norm.weight").dtype]).toEqual(["bf16", "bf16"]);
    await close();
  });
});

describe("an adapter", () => {
  it("is written as PEFT has it, from files or from memory", async () => {
    const { base, adapter, flagged } = await made({ ...llama, ...vocabulary });
    const [files, memory] = [join(base, "../files"), join(base, "../memory")];
    await exportFiles({ model: base, adapter }, files, { to: "peft" });
    await exportModel(flagged, memory, { to: "peft", base });
    for (const name of await readdir(adapter)) {
      const expected = await readFile(join(adapter, name));
      expect(await readFile(join(files, name)), name).toEqual(expected);
      expect(await readFile(join(memory, name)), name).toEqual(expected);
    }
  });
});

describe("what is refused", () => {
  it("stays as it was", async () => {
    const { base, adapter, model } = await made({ ...llama, ...vocabulary });
    const attempt = (path: string, options: Partial<ExportOptions> = {}) =>
      exportFiles({ model: base, adapter }, path, { to: "hf", ...options });
    const before = await readFile(join(base, "model.safetensors"));
    await expect(attempt(base)).rejects.toThrow(
      /base: is not replaced: it holds files, but no exported model/,
    );
    await expect(attempt(adapter)).rejects.toThrow("is not replaced");
    await expect(attempt(base, { to: "peft" })).rejects.toThrow("but no adapter");
    expect(await readFile(join(base, "model.safetensors"))).toEqual(before);
    await expect(attempt(join(base, "LICENSE"))).rejects.toThrow("is not a folder");
    const out = join(base, "../out");
    await expect(attempt(out, { type: "q8_0" })).rejects.toThrow("type: hf has f32, f16, bf16, got 'q8_0'");
    await expect(attempt(out, { to: "peft", type: "f16" })).rejects.toThrow(RangeError);
    await expect(exportFiles({ model: base }, out, { to: "peft" })).rejects.toThrow("there is no adapter");
    await expect(exportModel(model, out, { to: "peft", base })).rejects.toThrow(TypeError);
    await expect(attempt(out, { to: "onnx" as "hf" })).rejects.toThrow("to must be hf");
    // An empty folder is nobody's.
    await mkdir(out);
    await attempt(out);
  });

  it("leaves nothing half-written", async () => {
    const { base, adapter } = await made({ ...llama, ...vocabulary });
    const file = join(base, "tokenizer.json");
    const tokenizer = await readFile(file, "utf8");
    const out = join(base, "../out");
    await writeFile(file, tokenizer.replace('"<bos>"', '"<rf>"'));
    await expect(exportFiles({ model: base, adapter }, out, { to: "hf" })).rejects.toThrow(
      "tokenizer.json: has a token '<rf>' already: 256",
    );
    await writeFile(file, tokenizer);
    const other = await baseFolder({ ...llama, ...vocabulary, layers: 1 });
    await expect(exportFiles({ model: other, adapter }, out, { to: "hf" })).rejects.toThrow("another base");
    expect((await readdir(join(base, ".."))).sort()).toEqual(["adapter", "base"]);
  });
});
