import { blockOf, bytesOf, type WeightType } from "../dtype.js";
import { type ModelConfig, weightShapes } from "../model/config.js";
import { encodedWeight } from "../model/encoded-weight.js";
import type { WeightSource } from "../model/merge.js";
import { type StoredWeight, weightOfValues } from "../model/stored-weight.js";
import { ggmlTypeNumber } from "./ggml-types.js";
import { ggufArchitectureOf, toGgufName } from "./gguf-architectures.js";
import { endOfTextEntries } from "./gguf-end-of-text.js";
import { type GgufEntry, string, u32 } from "./gguf-entry.js";
import { GgufHeaderWriter } from "./gguf-header-writer.js";
import { type GgufVocabulary, vocabularyEntries } from "./gguf-vocabulary.js";
import { interleaved } from "./rope-order.js";
import { replaceFile } from "./write.js";

export interface GgufOptions {
  /**
   * What matrices are stored as, f16 where nothing is said; those whose rows are not whole blocks of it are f16.
   * Vectors and learned positions are f32, as llama.cpp wants them.
   */
  readonly type?: WeightType;
  /**
   * What the matrix is stored as that makes the logits: the head, or the embedding where it serves as one. By
   * default `type`, but q8_0 with q4_0: llama.cpp's quantiser takes a finer type there too (q6_K, which we don't
   * write, or q8_0 where rows are no multiple of 256).
   */
  readonly outputType?: WeightType;
  /** Without one the file says that there is none, and engines take and give ids. */
  readonly vocabulary?: GgufVocabulary | null;
  /** For people. */
  readonly name?: string;
  /** What the file tells besides, by keys of a name space of their own. */
  readonly entries?: ReadonlyMap<string, GgufEntry>;
  /** Called with the bytes of weights written so far, and those of all. */
  readonly onProgress?: (written: number, total: number) => void;
}

/** What the data of each tensor is aligned to, in bytes: the format's default. */
const ALIGNMENT = 32;

const TYPE_NAMES = { f32: "F32", f16: "F16", bf16: "BF16", q8_0: "Q8_0", q4_0: "Q4_0" } as const;
/** `llama_ftype` in llama.h: what most of a file's weights are. */
const FILE_TYPES: Readonly<Record<WeightType, number>> = { f32: 0, f16: 1, bf16: 32, q8_0: 7, q4_0: 2 };
/** Of ggml's block layouts (GGML_QNT_VERSION). */
const QUANTISATION_VERSION = 2;

/**
 * Writes a model as a GGUF file of version 3 that llama.cpp loads, whole or not at all: beside its place, then
 * renamed. One piece of a weight is in memory at a time. Node only.
 * @throws FormatError naming the file that cannot be written, UnsupportedError where llama.cpp has not what the
 * configuration asks for, RangeError for a value that the type cannot hold
 */
export async function writeGguf(
  path: string,
  source: WeightSource,
  options: GgufOptions = {},
): Promise<void> {
  await replaceFile(path, ggufChunks(source, options));
}

/** A tensor of the file. */
interface Written {
  readonly name: string;
  readonly weight: StoredWeight;
  readonly type: WeightType;
  readonly bytes: number;
}

/** The bytes of such a file, in chunks. Throws as `writeGguf`. */
export async function* ggufChunks(
  { config, weight }: WeightSource,
  options: GgufOptions = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { type = "f16", onProgress } = options;
  const architecture = ggufArchitectureOf(config);
  const { entries, factors } = architecture.write(config);
  const inFile = (name: string) =>
    architecture.interleaved && /\.[qk]\.(weight|bias)$/.test(name)
      ? inPairs(weight(name), config.headDim)
      : weight(name);
  const tensors = [
    ...[...weightShapes(config).keys()].map((ours): Written => {
      const stored = inFile(ours);
      const dtype = typeOf(ours, stored.shape, config, options);
      return tensorOf(toGgufName(ours), stored, dtype);
    }),
    ...[...factors].map(([name, values]) => {
      const stored = weightOfValues([values.length], async () => Float32Array.from(values));
      return tensorOf(name, stored, "f32");
    }),
  ];

  const metadata = new Map<string, GgufEntry>([
    ["general.architecture", string(architecture.name)],
    ...(options.name === undefined ? [] : ([["general.name", string(options.name)]] as const)),
    ["general.file_type", u32(FILE_TYPES[type])],
    ["general.quantization_version", u32(QUANTISATION_VERSION)],
    ...[...entries].map(([name, entry]) => [`${architecture.name}.${name}`, entry] as const),
    ...tokenizerEntries(config, options),
    ...(options.entries ?? []),
  ]);
  yield header(metadata, tensors);

  const total = tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  let written = 0;
  for (const tensor of tensors) {
    for await (const chunk of encodedTensor(tensor)) {
      yield chunk;
      written += chunk.length;
      onProgress?.(written, total);
    }
    const padding = aligned(tensor.bytes) - tensor.bytes;
    if (padding > 0) yield new Uint8Array(padding);
  }
}

function tensorOf(name: string, weight: StoredWeight, type: WeightType): Written {
  return { name, weight, type, bytes: bytesOf(type, weight.shape) };
}

function typeOf(
  ours: string,
  shape: readonly number[],
  { tied }: ModelConfig,
  { type = "f16", outputType = type === "q4_0" ? "q8_0" : type }: GgufOptions,
): WeightType {
  if (shape.length === 1 || ours === "positions.weight") return "f32";
  const isOutput = ours === (tied ? "embed.weight" : "head.weight");
  const wanted = isOutput ? outputType : type;
  return (shape.at(-1) as number) % blockOf(wanted) === 0 ? wanted : "f16";
}

function tokenizerEntries(config: ModelConfig, { vocabulary }: GgufOptions): Map<string, GgufEntry> {
  const entries = new Map(
    vocabulary ? vocabularyEntries(vocabulary, config.vocabSize) : [["tokenizer.ggml.model", string("none")]],
  );
  const bos = "tokenizer.ggml.bos_token_id";
  if (config.bosId !== null && !entries.has(bos)) entries.set(bos, u32(config.bosId));
  for (const [name, entry] of endOfTextEntries(config.eosIds)) entries.set(name, entry);
  return entries;
}

/** All before the data of the first tensor. */
function header(
  metadata: ReadonlyMap<string, GgufEntry>,
  tensors: readonly Written[],
): Uint8Array<ArrayBuffer> {
  const writer = new GgufHeaderWriter();
  writer.bytes(new TextEncoder().encode("GGUF"));
  writer.u32(3);
  writer.u64(tensors.length);
  writer.u64(metadata.size);
  for (const [key, entry] of metadata) writer.entry(key, entry);
  let offset = 0;
  for (const { name, weight, type, bytes } of tensors) {
    writer.string(name);
    writer.u32(weight.shape.length);
    // The file counts the dimension that lies along a row first.
    for (const dim of [...weight.shape].reverse()) writer.u64(dim);
    writer.u32(ggmlTypeNumber(TYPE_NAMES[type]));
    writer.u64(offset);
    offset += aligned(bytes);
  }
  return writer.padded(ALIGNMENT);
}

async function* encodedTensor({ name, weight, type }: Written): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  try {
    yield* encodedWeight(weight, type);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new RangeError(`tensor '${name}': ${cause.message}`, { cause });
  }
}

/** A weight with the rows of each head in pairs. */
function inPairs(weight: StoredWeight, headDim: number): StoredWeight {
  return {
    ...weight,
    rowsTogether: leastCommonMultiple(weight.rowsTogether, headDim),
    async read(first, rows, into) {
      await weight.read(first, rows, into);
      into.set(interleaved(into, headDim, into.length / rows));
    },
  };
}

function leastCommonMultiple(a: number, b: number): number {
  let [divisor, rest] = [a, b];
  while (rest > 0) [divisor, rest] = [rest, divisor % rest];
  return (a / divisor) * b;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
