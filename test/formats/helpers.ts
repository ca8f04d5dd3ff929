import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { LLAMA_BLOCKS, type ModelConfig, weightShapes } from "../../src/model/config.js";
import { sizeOf } from "../../src/tensor.js";

/** A folder that goes away with the test. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "oriflamme-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export async function concatenate(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<Uint8Array> {
  const list: Uint8Array[] = [];
  for await (const chunk of chunks) list.push(chunk);
  return Buffer.concat(list);
}

/** What a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error("expected the promise to reject with an Error");
}

export const tinyLlama: ModelConfig = {
  architecture: "llama",
  vocabSize: 11,
  contextLength: 16,
  hiddenSize: 8,
  layers: 2,
  heads: 2,
  kvHeads: 1,
  headDim: 4,
  intermediateSize: 12,
  ...LLAMA_BLOCKS,
  normEps: 1e-5,
  position: { kind: "rope", theta: 10000, scaling: { kind: "none" } },
  tied: true,
  bosId: 1,
  eosIds: [2],
};

export const tinyMistral: ModelConfig = { ...tinyLlama, architecture: "mistral", window: 5, tied: false };

export const tinyGpt2: ModelConfig = {
  ...tinyLlama,
  architecture: "gpt2",
  kvHeads: 2,
  norm: "layernorm",
  position: { kind: "learned" },
  mlp: "gelu_tanh",
  bias: { qkv: true, output: true, mlp: true },
  fusedQkv: true,
};

export const tinyPhi3: ModelConfig = {
  ...tinyLlama,
  architecture: "phi3",
  headDim: 8,
  position: {
    kind: "rope",
    theta: 10000,
    scaling: {
      kind: "longrope",
      shortFactors: [1, 1.5],
      longFactors: [2, 3],
      originalContextLength: 8,
      attentionFactor: Math.sqrt(1 + Math.log(16 / 8) / Math.log(8)),
    },
    rotaryDim: 4,
  },
  fusedQkv: true,
  fusedMlp: true,
  tied: false,
};

export const tinyQwen2: ModelConfig = {
  ...tinyLlama,
  architecture: "qwen2",
  bias: { qkv: true, output: false, mlp: false },
};

export const tinyQwen3: ModelConfig = { ...tinyLlama, architecture: "qwen3", headDim: 6, qkNorm: true };

/** Weights that differ in every place and are exact in f16 and bf16. */
export function someWeights(config: ModelConfig): Map<string, Float32Array> {
  const weights = new Map<string, Float32Array>();
  let seed = 1;
  for (const [name, shape] of weightShapes(config)) {
    weights.set(
      name,
      Float32Array.from({ length: sizeOf(shape) }, () => {
        seed = (seed * 48271) % 0x7fffffff;
        return ((seed % 255) - 127) / 64;
      }),
    );
  }
  return weights;
}

export function readerOf(
  weights: ReadonlyMap<string, Float32Array>,
): (name: string) => Promise<Float32Array> {
  return async (name) => {
    const values = weights.get(name);
    if (!values) throw new RangeError(`no weight '${name}'`);
    return values;
  };
}
