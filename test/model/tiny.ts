import type { Backend } from "../../src/backend.js";
import { createBackend } from "../../src/backends/create.js";
import { LLAMA_BLOCKS, type ModelConfig } from "../../src/model/config.js";
import { type ForwardOptions, forward, head } from "../../src/model/forward.js";
import { initialise } from "../../src/model/init.js";
import type { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import type { Tokenizer } from "../../src/tokenizer.js";

/** Grouped heads, tied. */
export const llama: ModelConfig = {
  architecture: "llama",
  vocabSize: 19,
  contextLength: 24,
  hiddenSize: 16,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 4,
  intermediateSize: 20,
  ...LLAMA_BLOCKS,
  normEps: 1e-5,
  position: { kind: "rope", theta: 100, scaling: { kind: "none" } },
  tied: true,
  bosId: null,
  eosIds: [],
};

/** A sliding window, untied. */
export const mistral: ModelConfig = { ...llama, architecture: "mistral", window: 3, tied: false };

/** Learned positions, layer norms, biases, one matrix for q, k and v. */
export const gpt2: ModelConfig = {
  ...llama,
  architecture: "gpt2",
  kvHeads: 4,
  norm: "layernorm",
  position: { kind: "learned" },
  mlp: "gelu_tanh",
  bias: { qkv: true, output: true, mlp: true },
  fusedQkv: true,
};

/** One matrix for q, k and v, one for gate and up, LongRoPE past 8 positions on half of a head; untied. */
export const phi3: ModelConfig = {
  ...llama,
  architecture: "phi3",
  headDim: 8,
  position: {
    kind: "rope",
    theta: 100,
    scaling: {
      kind: "longrope",
      shortFactors: [1, 1.3],
      longFactors: [1.5, 4],
      originalContextLength: 8,
      attentionFactor: 1.24,
    },
    rotaryDim: 4,
  },
  fusedQkv: true,
  fusedMlp: true,
  tied: false,
};

/** Biases of q, k and v; a window in the second layer only. */
export const qwen2: ModelConfig = {
  ...llama,
  architecture: "qwen2",
  bias: { qkv: true, output: false, mlp: false },
  window: 4,
  fullAttentionLayers: [0],
};

/** Normed heads of q and k, wider than the residual stream by heads. */
export const qwen3: ModelConfig = { ...llama, architecture: "qwen3", headDim: 6, qkNorm: true };

/** Enough for what does not look into a block. */
export const CONFIGS = [
  ["llama", llama],
  ["mistral", mistral],
  ["gpt2", gpt2],
] as const;

/** One for every branch of the forward pass. */
export const ALL_CONFIGS = [...CONFIGS, ["phi3", phi3], ["qwen2", qwen2], ["qwen3", qwen3]] as const;

/** The build whose bits are the same everywhere. */
export function baseline(): Promise<Backend> {
  return createBackend({ kind: "wasm", wasm: "baseline", deterministic: true });
}

/** A fresh model with weights so large that every part of it shows in the logits, and no bias or norm is trivial. */
export async function loudModel(
  backend: Backend,
  config: ModelConfig,
  tokenizer: Tokenizer | null = null,
  seed = 1,
): Promise<Model> {
  const random = new Random(seed);
  const model = initialise(backend, config, tokenizer, random);
  for (const [name, tensor] of model.weights.entries()) {
    const values = await tensor.read();
    const isMatrix = tensor.shape.length === 2;
    const isBias = name.endsWith(".bias");
    tensor.write(
      values.map((x) => (isMatrix ? 15 * x : isBias ? 0.2 * random.normal() : 1 + 0.2 * random.normal())),
    );
  }
  return model;
}

/** The logits of a pass, (ids, vocabulary) in one row. */
export async function logitsOf(
  model: Model,
  ids: ArrayLike<number>,
  options: ForwardOptions = {},
): Promise<Float32Array> {
  const arena = new Arena(model.backend);
  const tape = new Tape(arena, false);
  const values = await head(tape, model, forward(tape, model, ids, options), options.overlay).read();
  arena.dispose();
  return values;
}

export function randomIds(count: number, below: number, seed = 7): number[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => random.below(below));
}
