import { FormatError } from "../errors.js";
import { LLAMA_BLOCKS, type ModelConfig, weightShapes } from "../model/config.js";
import { sizeOf } from "../tensor.js";
import { LLAMA2C_BOS, LLAMA2C_EOS } from "./llama2c-tokenizer.js";
import { halfSplit } from "./rope-order.js";
import type { ByteSource } from "./source.js";
import { expectFiniteBytes, type WeightReader } from "./weights.js";

/** Bytes of the header: seven i32. */
const HEADER = 28;
/** A sanity limit on each field, far above any model; all products of the fields then are exact. */
const MAX_FIELD = 1 << 24;

/**
 * Opens a model in the legacy format of llama2.c (`export.py`, version 0): the header (dim, hidden_dim, n_layers,
 * n_heads, n_kv_heads, vocab_size, seq_len), then f32 blocks of each kind of weight over all layers.
 *
 * It ends a generation at BOS as run.c does (its training data has BOS between texts), and at EOS, which run.c lets
 * pass but models converted from Llama 2 use.
 * Throws FormatError where the header makes no sense or the file has not exactly the bytes that it promises.
 */
export async function openLlama2c(source: ByteSource): Promise<WeightReader> {
  const config = await readHeader(source);
  const shapes = weightShapes(config);
  const { offsets, end } = layOut(config, shapes);
  if (source.size !== end) {
    throw new FormatError(source.name, `has ${source.size} bytes, but its header promises ${end}`);
  }
  return {
    config,
    weight(name) {
      const offset = offsets.get(name);
      const shape = shapes.get(name);
      if (offset === undefined || !shape) throw new RangeError(`the model has no weight '${name}'`);
      const isRotated = /\.[qk]\.weight$/.test(name);
      const rowBytes = sizeOf(shape.slice(1)) * 4;
      return {
        shape,
        dtype: "f32",
        rowsTogether: isRotated ? config.headDim : 1,
        async read(first, _rows, into) {
          await source.readInto(offset + first * rowBytes, into);
          expectFiniteBytes("f32", into, source.name, name, first * rowBytes);
          if (isRotated) into.set(halfSplit(into, config.headDim, rowBytes));
        },
      };
    },
    close: () => source.close(),
  };
}

async function readHeader(source: ByteSource): Promise<ModelConfig> {
  const fail = (problem: string): never => {
    throw new FormatError(source.name, `is not a llama2.c model: ${problem}`);
  };
  if (source.size < HEADER) fail(`${source.size} bytes are too few for its header`);
  const view = new DataView((await source.read(0, HEADER)).buffer);
  const field = (index: number, name: string) => {
    const value = view.getInt32(index * 4, true);
    // The sign of vocab_size says whether the head is a matrix of its own.
    const size = name === "vocab_size" ? Math.abs(value) : value;
    if (size < 1 || size > MAX_FIELD) fail(`${name} is ${value}`);
    return size;
  };
  const hiddenSize = field(0, "dim");
  const intermediateSize = field(1, "hidden_dim");
  const layers = field(2, "n_layers");
  const heads = field(3, "n_heads");
  const kvHeads = field(4, "n_kv_heads");
  const vocabSize = field(5, "vocab_size");
  const contextLength = field(6, "seq_len");
  if (layers > 4096) fail(`n_layers is ${layers}`);
  if (hiddenSize % heads !== 0) fail(`${heads} heads do not divide a dim of ${hiddenSize}`);
  if (heads % kvHeads !== 0) fail(`${kvHeads} kv heads do not divide ${heads} heads`);
  if ((hiddenSize / heads) % 2 !== 0) fail(`a head of ${hiddenSize / heads} is odd`);

  return {
    architecture: "llama",
    vocabSize,
    contextLength,
    hiddenSize,
    layers,
    heads,
    kvHeads,
    headDim: hiddenSize / heads,
    intermediateSize,
    ...LLAMA_BLOCKS,
    normEps: 1e-5,
    position: { kind: "rope", theta: 10000, scaling: { kind: "none" } },
    tied: view.getInt32(20, true) > 0,
    bosId: LLAMA2C_BOS,
    eosIds: [LLAMA2C_BOS, LLAMA2C_EOS].filter((id) => id < vocabSize),
  };
}

/** The byte offset of every weight, and the size that the file must have. */
function layOut(config: ModelConfig, shapes: ReadonlyMap<string, readonly number[]>) {
  const offsets = new Map<string, number>();
  let end = HEADER;
  const place = (name: string) => {
    const shape = shapes.get(name);
    if (!shape) throw new RangeError(`a llama2.c model has no weight '${name}'`);
    offsets.set(name, end);
    end += sizeOf(shape) * 4;
  };
  place("embed.weight");
  for (const part of ["attention_norm", "q", "k", "v", "output", "mlp_norm", "gate", "down", "up"]) {
    for (let i = 0; i < config.layers; i++) place(`layers.${i}.${part}.weight`);
  }
  place("norm.weight");
  // Tables of cosines and sines that run.c no longer reads: half a head each, for every position.
  end += config.contextLength * config.headDim * 4;
  if (!config.tied) place("head.weight");
  return { offsets, end };
}
