import type { WeightType } from "../dtype.js";
import { FormatError } from "../errors.js";
import { type ModelConfig, weightShapes } from "../model/config.js";
import { type StoredWeight, weightOfValues } from "../model/stored-weight.js";
import { formatShape } from "../tensor.js";
import { architectureOf } from "./hf-architectures.js";
import { parseHuggingFaceConfig } from "./hf-config.js";
import { toHuggingFaceName, transpose, transposeInto } from "./hf-names.js";
import { isObject, parseObject } from "./json.js";
import { openSafetensors, type SafetensorsFile } from "./safetensors.js";
import type { ModelFiles } from "./source.js";
import { expectFinite, expectFiniteBytes, type WeightReader, weightInFile } from "./weights.js";

/** The types of a file that weights are stored as. */
const TYPES: ReadonlyMap<string, WeightType> = new Map([
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
]);

interface Located {
  readonly file: SafetensorsFile;
  readonly name: string;
}

/**
 * Opens a Hugging Face folder: `config.json` and `model.safetensors`, single or in shards. Headers are read and
 * every weight's place and shape is checked; values are read when they are asked for.
 * Throws FormatError naming file, field or tensor, and UnsupportedError for what is not implemented.
 */
export async function openHuggingFace(files: ModelFiles): Promise<WeightReader> {
  const config = await readHuggingFaceConfig(files);
  const shards = await openShards(files);
  const close = async () => {
    await Promise.all(shards.files.map((file) => file.close()));
  };
  try {
    const shapes = weightShapes(config);
    const located = new Map<string, Located>();
    for (const [ours, shape] of shapes) located.set(ours, locate(config, shards, ours, shape));
    expectNoStrangers(config, shards, located);
    return {
      config,
      weight(ours) {
        const place = located.get(ours);
        const shape = shapes.get(ours);
        if (!place || !shape) throw new RangeError(`the model has no weight '${ours}'`);
        return toHuggingFaceName(config, ours).transpose ? turned(place, shape) : straight(place, shape);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A weight that lies in the file as we have it. */
function straight({ file, name }: Located, shape: readonly number[]): StoredWeight {
  const stored = file.tensors.get(name)?.dtype;
  const dtype = TYPES.get(stored ?? "");
  // f64, which no kernel takes.
  if (dtype === undefined) return weightOfValues(shape, () => finiteValues(file, name));
  return weightInFile(file, name, shape, dtype);
}

/** A weight that the file has as (in, out), read as a whole. */
function turned({ file, name }: Located, shape: readonly number[]): StoredWeight {
  const [out = 1, input = 1] = shape;
  const dtype = TYPES.get(file.tensors.get(name)?.dtype ?? "");
  if (dtype === undefined)
    return weightOfValues(shape, async () => transpose(await finiteValues(file, name), input, out));
  return {
    shape,
    dtype,
    rowsTogether: out,
    async read(_first, _rows, into) {
      const bytes = new Uint8Array(into.length);
      await file.readRange(name, 0, bytes);
      expectFiniteBytes(dtype, bytes, file.name, name);
      if (dtype === "f32") transposeInto(wordsOf(into), wordsOf(bytes), input, out);
      else transposeInto(halvesOf(into), halvesOf(bytes), input, out);
    },
  };
}

function wordsOf({ buffer, byteOffset, length }: Uint8Array): Uint32Array {
  return new Uint32Array(buffer, byteOffset, length / 4);
}

function halvesOf({ buffer, byteOffset, length }: Uint8Array): Uint16Array {
  return new Uint16Array(buffer, byteOffset, length / 2);
}

async function finiteValues(file: SafetensorsFile, name: string): Promise<Float32Array> {
  const values = await file.read(name);
  expectFinite(values, file.name, name);
  return values;
}

/** Reads `config.json` and, where there is one, `generation_config.json`. */
export async function readHuggingFaceConfig(files: ModelFiles): Promise<ModelConfig> {
  const text = await files.text("config.json");
  const generation = "generation_config.json";
  return parseHuggingFaceConfig(
    text,
    files.describe("config.json"),
    files.has(generation)
      ? { text: await files.text(generation), file: files.describe(generation) }
      : undefined,
  );
}

interface Shards {
  readonly files: SafetensorsFile[];
  /** What messages about missing tensors name. */
  readonly description: string;
  find(tensor: string): Located | undefined;
  names(): Iterable<string>;
}

async function openShards(files: ModelFiles): Promise<Shards> {
  const single = "model.safetensors";
  const index = "model.safetensors.index.json";
  if (files.has(single)) {
    const [file] = await openAll(files, [single]);
    if (!file) throw new FormatError(files.describe(single), "no such file or folder");
    return {
      files: [file],
      description: file.name,
      find: (name) => (file.tensors.has(name) ? { file, name } : undefined),
      names: () => file.tensors.keys(),
    };
  }
  if (!files.has(index)) {
    const others = files.names.find((name) => /^(pytorch_model.*\.bin|.*\.pth)$/.test(name));
    const hint = others ? ` ('${others}' is a pickle, which is not read)` : "";
    throw new FormatError(files.name, `holds neither ${single} nor ${index}${hint}`);
  }

  const where = files.describe(index);
  const { weight_map: map } = parseObject(await files.text(index), where);
  if (!isObject(map)) throw new FormatError(where, "'weight_map' must be an object");
  const shardOf = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string") throw new FormatError(where, `'weight_map.${tensor}' must be a file name`);
    shardOf.set(tensor, shard);
  }
  const shardNames = [...new Set(shardOf.values())];
  const opened = await openAll(files, shardNames);
  const byName = new Map(shardNames.map((name, i) => [name, opened[i]]));
  return {
    files: opened,
    description: where,
    find(name) {
      const shard = shardOf.get(name);
      const file = shard === undefined ? undefined : byName.get(shard);
      if (file && !file.tensors.has(name)) {
        throw new FormatError(file.name, `has no tensor '${name}', which ${where} says it holds`);
      }
      return file && { file, name };
    },
    names: () => shardOf.keys(),
  };
}

async function openAll(files: ModelFiles, names: readonly string[]): Promise<SafetensorsFile[]> {
  const opened: SafetensorsFile[] = [];
  try {
    for (const name of names) {
      const source = await files.open(name);
      try {
        opened.push(await openSafetensors(source));
      } catch (error) {
        await source.close();
        throw error;
      }
    }
    return opened;
  } catch (error) {
    await Promise.all(opened.map((file) => file.close()));
    throw error;
  }
}

/** Finds a weight under its full name, or without the prefix. */
function locate(config: ModelConfig, shards: Shards, ours: string, shape: readonly number[]): Located {
  const { prefix } = architectureOf(config.architecture, shards.description);
  const { name, transpose: isTransposed } = toHuggingFaceName(config, ours);
  const short = name.startsWith(prefix) ? name.slice(prefix.length) : name;
  const place = shards.find(name) ?? shards.find(short);
  if (!place) throw new FormatError(shards.description, `has no tensor '${name}'`);

  const entry = place.file.tensors.get(place.name);
  const expected = isTransposed ? [...shape].reverse() : shape;
  if (!entry || entry.shape.length !== expected.length || entry.shape.some((dim, i) => dim !== expected[i])) {
    throw new FormatError(
      place.file.name,
      `tensor '${place.name}' has shape ${formatShape(entry?.shape ?? [])}, expected ${formatShape(expected)}`,
    );
  }
  if (!["F32", "F16", "BF16", "F64"].includes(entry.dtype)) {
    throw new FormatError(place.file.name, `tensor '${place.name}' holds ${entry.dtype}, expected floats`);
  }
  return place;
}

/**
 * Throws where a tensor inside the blocks has no place in the configuration (a bias, a norm, a block too many):
 * leaving it out would silently compute something else. Buffers of old files are harmless, as is what lies outside.
 */
function expectNoStrangers(config: ModelConfig, shards: Shards, located: ReadonlyMap<string, Located>): void {
  const { prefix, layers } = architectureOf(config.architecture, shards.description);
  const known = new Set([...located.values()].map((place) => place.name));
  for (const name of shards.names()) {
    const short = name.startsWith(prefix) ? name.slice(prefix.length) : name;
    const isBuffer = /\.(attn\.(masked_)?bias|rotary_emb\.inv_freq)$/.test(name);
    if (short.startsWith(`${layers}.`) && !known.has(name) && !isBuffer) {
      throw new FormatError(
        shards.description,
        `tensor '${name}' has no place in what config.json describes`,
      );
    }
  }
}
