import type { Backend } from "../../backend.js";
import type { WeightType } from "../../dtype.js";
import { type GgufVocabulary, TOKEN_TYPE } from "../../formats/gguf-vocabulary.js";
import { LLAMA_BLOCKS, type ModelConfig, weightShapes } from "../../model/config.js";
import { Model } from "../../model/model.js";
import { sizeOf } from "../../tensor.js";
import { noise } from "./noise.js";

/** dim, layers, heads, kv heads, ffn, vocabulary: how a shape of `train` and `decode` begins. */
export type LlamaShape = readonly number[];

/** A Llama with tied embeddings, of that shape. */
export function llamaConfig(shape: LlamaShape, contextLength: number): ModelConfig {
  const [hiddenSize = 0, layers = 0, heads = 1, kvHeads = 1, intermediateSize = 0, vocabSize = 0] = shape;
  return {
    architecture: "llama",
    ...{ hiddenSize, layers, heads, kvHeads, intermediateSize, vocabSize, contextLength },
    headDim: hiddenSize / heads,
    ...LLAMA_BLOCKS,
    normEps: 1e-5,
    position: { kind: "rope", theta: 10000, scaling: { kind: "none" } },
    tied: true,
    bosId: null,
    eosIds: [],
  };
}

/** Of the weights: as wide as GPT-2's normal(0.02), and a power of two, so that it rounds nowhere. */
const WEIGHT_SCALE = 2 ** -4;

/** The weights by our names, in the order of `weightShapes`: norms 1, the others noise, a stream each. */
export function* llamaWeights(
  config: ModelConfig,
): Generator<{ name: string; shape: readonly number[]; values: Float32Array }> {
  let stream = 0;
  for (const [name, shape] of weightShapes(config)) {
    const size = sizeOf(shape);
    const values = name.endsWith("norm.weight")
      ? new Float32Array(size).fill(1)
      : noise(size, stream).map((x) => x * WEIGHT_SCALE);
    stream++;
    yield { name, shape, values };
  }
}

/** Weights that a token is multiplied with: all of the linear layers, and the tied head. */
export function matrixWeights(shape: LlamaShape): number {
  const [dim = 0, layers = 0, heads = 1, kvHeads = 1, ffn = 0, vocab = 0] = shape;
  const kvDim = (dim / heads) * kvHeads;
  return layers * (2 * dim * dim + 2 * dim * kvDim + 3 * dim * ffn) + vocab * dim;
}

/**
 * A vocabulary of that size, at least 259, that nobody uses: pieces as SentencePiece has them, the bytes and words.
 * llama.cpp's bindings end the process where a file has none.
 */
export function someVocabulary(size: number): GgufVocabulary {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).padStart(2, "0").toUpperCase()}>`);
  const tokens = ["<unk>", "<s>", "</s>", ...bytes];
  const { unknown, control, byte, normal } = TOKEN_TYPE;
  const types: number[] = [unknown, control, control, ...bytes.map(() => byte)];
  for (let id = tokens.length; id < size; id++) {
    tokens.push(`w${id}`);
    types.push(normal);
  }
  return {
    ...{ kind: "llama", tokens, types, scores: tokens.map((_, id) => -id) },
    ...{ bosId: 1, unknownId: 0, addBos: true, prefixSpace: true, chatTemplate: null },
  };
}

/** The model on a backend. */
export async function benchLlama(
  backend: Backend,
  shape: LlamaShape,
  contextLength: number,
  dtype: WeightType = "f32",
): Promise<Model> {
  const config = llamaConfig(shape, contextLength);
  const weights = llamaWeights(config);
  const read = async () => weights.next().value?.values ?? new Float32Array();
  return Model.fromValues(backend, config, null, read, dtype);
}
