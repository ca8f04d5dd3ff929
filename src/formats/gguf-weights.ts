import type { WeightType } from "../dtype.js";
import { FormatError, UnsupportedError } from "../errors.js";
import { type ModelConfig, weightShapes } from "../model/config.js";
import type { StoredWeight } from "../model/stored-weight.js";
import { q4kToF32, q6kToF32 } from "../quantise-k.js";
import { formatShape, sizeOf } from "../tensor.js";
import type { GgmlType } from "./ggml-types.js";
import { type GgufFile, type GgufTensor, openGguf, shortestDecimal } from "./gguf.js";
import { type GgufArchitecture, ggufArchitecture, toGgufName } from "./gguf-architectures.js";
import { endOfTextIds } from "./gguf-end-of-text.js";
import { ROPE_FACTORS } from "./gguf-rope.js";
import { Fields } from "./json.js";
import { halfSplit } from "./rope-order.js";
import type { ByteSource } from "./source.js";
import { expectFinite, type WeightReader, weightInFile } from "./weights.js";

/** An open model of a GGUF file. */
export interface GgufModel extends WeightReader {
  /** Its metadata, for the tokenizer. */
  readonly fields: Fields;
}

/** The types of a file that weights are stored as. */
const TYPES: ReadonlyMap<string, WeightType> = new Map([
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
  ["Q8_0", "q8_0"],
  ["Q4_0", "q4_0"],
]);

/** Types that are decoded as they are read, no kernel taking them. */
const DECODED: ReadonlyMap<string, (bytes: Uint8Array) => Float32Array<ArrayBuffer>> = new Map([
  ["Q4_K", q4kToF32],
  ["Q6_K", q6kToF32],
]);

/**
 * What weights of such types are kept as on a backend that keeps what is stored. Each value moves by at most 1/226 of
 * the largest in its block of 32: half a step of q8_0, 1/254, and what f16 does to the scale. Over random super-blocks
 * of gguf-py that was 0.0041 of the largest, and 0.4 % of the values' root mean square (q4_K) or 0.5 % (q6_K).
 */
const KEEP_DECODED_AS: WeightType = "q8_0";

/**
 * Opens the model of a GGUF file of one of the architectures in `gguf-architectures.ts`. Every weight's place, shape
 * and type is checked; values are read when they are asked for.
 * Throws FormatError naming file, field or tensor, and UnsupportedError for what is not implemented.
 */
export async function openGgufModel(source: ByteSource): Promise<GgufModel> {
  const file = await openGguf(source);
  const fields = metadataFields(file);
  if (fields.integer("split.count", { least: 0, fallback: 1 }) > 1) {
    throw new UnsupportedError(`${file.name}: 'split.count': a model in several files`);
  }
  const architecture = ggufArchitecture(fields.string("general.architecture"), file.name);
  const config = await readConfig(file, fields, architecture);

  const weights = new Map<string, StoredWeight>();
  const places = new Set<string>(Object.values(ROPE_FACTORS));
  for (const [ours, shape] of weightShapes(config)) {
    const name = toGgufName(ours);
    places.add(name);
    const weight = storedWeight(file, name, shape);
    const isRotated = architecture.interleaved && /\.[qk]\.(weight|bias)$/.test(ours);
    weights.set(ours, isRotated ? inHalves(weight, config.headDim) : weight);
  }
  expectNoStrangers(file, places);
  return {
    config,
    fields,
    weight(ours) {
      const weight = weights.get(ours);
      if (!weight) throw new RangeError(`the model has no weight '${ours}'`);
      return weight;
    },
    close: () => file.close(),
  };
}

/** The metadata by its keys. */
export function metadataFields({ name, metadata }: GgufFile): Fields {
  return new Fields(name, Object.fromEntries(metadata));
}

async function readConfig(
  file: GgufFile,
  fields: Fields,
  architecture: GgufArchitecture,
): Promise<ModelConfig> {
  const factors = new Map<string, readonly number[]>();
  for (const name of Object.values(ROPE_FACTORS)) {
    const tensor = file.tensors.get(name);
    if (tensor) factors.set(name, await readFactors(file, name, tensor));
  }
  const config = architecture.read({
    fields: below(fields, architecture.name),
    shapeOf: (tensor) => file.tensors.get(tensor)?.shape,
    factorsOf: (tensor) => factors.get(tensor),
  });
  const bosId = fields.integer("tokenizer.ggml.bos_token_id", {
    least: 0,
    most: 2 ** 32 - 1,
    fallback: NONE,
  });
  return {
    ...config,
    bosId: bosId < config.vocabSize ? bosId : null,
    eosIds: endOfTextIds(fields).filter((id) => id < config.vocabSize),
  };
}

/** More than any id. */
const NONE = 2 ** 32 - 1;

/** The fields whose names begin with the architecture's. */
function below(fields: Fields, architecture: string): Fields {
  const path = `${architecture}.`;
  const inside = Object.entries(fields.values).filter(([key]) => key.startsWith(path));
  return new Fields(
    fields.file,
    Object.fromEntries(inside.map(([key, value]) => [key.slice(path.length), value])),
    path,
  );
}

/** A limit on a head's pairs, far above any model, so that a lying file cannot make us hold a large tensor. */
const MAX_FACTORS = 4096;

async function readFactors(
  file: GgufFile,
  name: string,
  { type, shape, begin, end }: GgufTensor,
): Promise<number[]> {
  if (type.name !== "F32" || shape.length !== 1 || sizeOf(shape) > MAX_FACTORS) {
    throw new FormatError(
      file.name,
      `tensor '${name}' is ${type.name} of shape ${formatShape(shape)}, expected F32 of one dimension`,
    );
  }
  const bytes = new Uint8Array(end - begin);
  await file.readRange(name, 0, bytes);
  const values = new Float32Array(bytes.buffer);
  expectFinite(values, file.name, name);
  return Array.from(values, shortestDecimal);
}

/**
 * Throws where a tensor has no place in the configuration (a bias, a norm, a block too many): leaving it out would
 * silently compute something else.
 */
function expectNoStrangers(file: GgufFile, places: ReadonlySet<string>): void {
  for (const name of file.tensors.keys()) {
    if (!places.has(name)) {
      throw new FormatError(file.name, `tensor '${name}' has no place in what the metadata describes`);
    }
  }
}

/** A weight as the file has it. Throws where it is missing, or has another shape or a type that is not read. */
function storedWeight(file: GgufFile, name: string, shape: readonly number[]): StoredWeight {
  const tensor = file.tensors.get(name);
  if (!tensor) throw new FormatError(file.name, `has no tensor '${name}'`);
  if (tensor.shape.length !== shape.length || tensor.shape.some((dim, i) => dim !== shape[i])) {
    throw new FormatError(
      file.name,
      `tensor '${name}' has shape ${formatShape(tensor.shape)}, expected ${formatShape(shape)}`,
    );
  }
  const { type } = tensor;
  const dtype = TYPES.get(type.name);
  if (dtype !== undefined) return weightInFile(file, name, shape, dtype);
  const decode = DECODED.get(type.name);
  if (decode) return decodedWeight(file, name, shape, type, decode);
  const known = [...TYPES.keys(), ...DECODED.keys()].join(", ");
  throw new UnsupportedError(`${file.name}: tensor '${name}' is ${type.name}, expected one of ${known}`);
}

function decodedWeight(
  file: GgufFile,
  name: string,
  shape: readonly number[],
  type: GgmlType,
  decode: (bytes: Uint8Array) => Float32Array<ArrayBuffer>,
): StoredWeight {
  const rowBytes = (sizeOf(shape.slice(1)) / type.block) * type.bytes;
  return {
    shape,
    dtype: "f32",
    keepAs: KEEP_DECODED_AS,
    rowsTogether: 1,
    async read(first, rows, into) {
      const bytes = new Uint8Array(rows * rowBytes);
      await file.readRange(name, first * rowBytes, bytes);
      const values = decode(bytes);
      expectFinite(values, file.name, name);
      into.set(new Uint8Array(values.buffer));
    },
  };
}

/** A weight whose rows the file has in pairs. */
function inHalves(weight: StoredWeight, headDim: number): StoredWeight {
  return {
    ...weight,
    rowsTogether: headDim,
    async read(first, rows, into) {
      await weight.read(first, rows, into);
      into.set(halfSplit(into, headDim, into.length / rows));
    },
  };
}
