import { UnsupportedError } from "../errors.js";
import { LLAMA_BLOCKS, type ModelConfig } from "../model/config.js";
import { f32, type GgufEntry, u32 } from "./gguf-entry.js";
import { type FactorsOf, ROPE_FACTORS, readGgufRope, type WrittenRope, writeGgufRope } from "./gguf-rope.js";
import type { Fields } from "./json.js";

/** What a row of the table makes of a file; ids of special tokens are read alike for all. */
export type GgufConfig = Omit<ModelConfig, "bosId" | "eosIds">;

/** What a row of the table reads. */
export interface GgufSource {
  /** The metadata below the architecture's name, `llama.` and the like. */
  readonly fields: Fields;
  /** (rows first), undefined where the file has no such tensor. */
  readonly shapeOf: (tensor: string) => readonly number[] | undefined;
  readonly factorsOf: FactorsOf;
}

/** One architecture of llama.cpp: what its files say of it, and what they have to say. */
export interface GgufArchitecture {
  /** As in `general.architecture`. */
  readonly name: string;
  /**
   * Whether rotary positions turn neighbouring rows of q and k (LLAMA_ROPE_TYPE_NORM) where ours turn those half a
   * head apart (LLAMA_ROPE_TYPE_NEOX).
   */
  readonly interleaved: boolean;
  readonly read: (source: GgufSource) => GgufConfig;
  /** The fields below the architecture's name, and the tensors of rotary factors. */
  readonly write: (config: ModelConfig) => WrittenRope;
}

/** llama.cpp's names (`LLM_TENSOR_NAMES` in llama-arch.cpp) of our weights; those of a block behind `blk.<i>.`. */
const NAMES: Readonly<Record<string, string>> = {
  embed: "token_embd",
  positions: "position_embd",
  norm: "output_norm",
  head: "output",
};
const BLOCK_NAMES: Readonly<Record<string, string>> = {
  attention_norm: "attn_norm",
  q: "attn_q",
  k: "attn_k",
  v: "attn_v",
  qkv: "attn_qkv",
  q_norm: "attn_q_norm",
  k_norm: "attn_k_norm",
  output: "attn_output",
  mlp_norm: "ffn_norm",
  gate: "ffn_gate",
  up: "ffn_up",
  gate_up: "ffn_up",
  down: "ffn_down",
};

/** The name in a file of one of our weights (`layers.0.q.weight`). Throws RangeError for no name of a weight. */
export function toGgufName(ours: string): string {
  const match = /^(?:layers\.(\d+)\.)?(\w+)(\.weight|\.bias)$/.exec(ours);
  const [, layer, part = "", suffix] = match ?? [];
  const names = layer === undefined ? NAMES : BLOCK_NAMES;
  if (!Object.hasOwn(names, part)) throw new RangeError(`no model has a weight '${ours}'`);
  return `${layer === undefined ? "" : `blk.${layer}.`}${names[part]}${suffix}`;
}

/** The row of a `general.architecture`. Throws UnsupportedError where there is none. */
export function ggufArchitecture(name: string, where: string): GgufArchitecture {
  switch (name) {
    case "llama":
      return {
        name,
        interleaved: true,
        read: (source) => {
          const config = readCommon(source, true);
          const has = (part: string) => source.shapeOf(`blk.0.${part}.bias`) !== undefined;
          return {
            ...config,
            // A window is what Hugging Face's architectures have between them.
            architecture: config.window === null ? "llama" : "mistral",
            bias: { qkv: has("attn_q"), output: has("attn_output"), mlp: has("ffn_up") },
          };
        },
        write: (config) => writeCommon(config, [ROPE_FACTORS.every]),
      };
    case "phi3":
      return {
        name,
        interleaved: false,
        read: (source) => ({
          ...readCommon(source, false),
          architecture: name,
          fusedQkv: true,
          fusedMlp: true,
        }),
        write: (config) => writeCommon(config, [ROPE_FACTORS.short, ROPE_FACTORS.long]),
      };
    case "qwen2":
      return {
        name,
        interleaved: false,
        read: (source) => ({
          ...readCommon(source, false),
          architecture: name,
          bias: { qkv: true, output: false, mlp: false },
        }),
        write: (config) => writeCommon(config, []),
      };
    case "qwen3":
      return {
        name,
        interleaved: false,
        read: (source) => ({ ...readCommon(source, false), architecture: name, qkNorm: true }),
        write: (config) => writeCommon(config, []),
      };
    case "gpt2":
      return { name, interleaved: false, read: readGpt2, write: writeGpt2 };
    default:
      throw new UnsupportedError(`${where}: 'general.architecture' of '${name}'`);
  }
}

/** The row that a model is written by. Throws UnsupportedError where llama.cpp has none. */
export function ggufArchitectureOf({ architecture }: ModelConfig): GgufArchitecture {
  return ggufArchitecture(architecture === "mistral" ? "llama" : architecture, "model");
}

/** A count of blocks that no model comes near, so that a lying file cannot make us enumerate them. */
const MAX_LAYERS = 4096;

/** Factors that some architectures have and these have not: leaving one out would silently compute something else. */
const FACTORS = ["logit_scale", "embedding_scale", "residual_scale", "attention.scale", "expert_count"];

/** What all have that rotate, RMSNorm and gate. */
function readCommon(source: GgufSource, interleaved: boolean): Omit<GgufConfig, "architecture"> {
  const { fields, shapeOf, factorsOf } = source;
  for (const name of FACTORS) {
    if (fields.has(name) && fields.get(name) !== 0) unsupported(fields, name);
  }
  const sizes = readSizes(source);
  const headDim = fields.integer("attention.key_length", { fallback: sizes.headDim });
  if (fields.integer("attention.value_length", { fallback: headDim }) !== headDim) {
    unsupported(fields, "attention.value_length");
  }
  if (headDim % 2 !== 0) {
    fields.fail("attention.key_length", `of ${headDim} is odd: rotary positions turn pairs`);
  }
  const window = fields.integer("attention.sliding_window", { least: 0, fallback: 0 });
  return {
    ...sizes,
    headDim,
    ...LLAMA_BLOCKS,
    normEps: fields.positive("attention.layer_norm_rms_epsilon"),
    position: readGgufRope(fields, headDim, interleaved, factorsOf),
    window: window === 0 ? null : window,
    tied: shapeOf("output.weight") === undefined,
  };
}

/** @throws UnsupportedError where a size differs from layer to layer */
function readSizes({ fields, shapeOf }: GgufSource) {
  const integer = (name: string, fallback?: number) => {
    const value = fields.get(name);
    if (typeof value === "object") unsupported(fields, name, "a list, a value for each layer");
    return fields.integer(name, fallback === undefined ? {} : { fallback });
  };
  const hiddenSize = integer("embedding_length");
  const heads = integer("attention.head_count");
  const kvHeads = integer("attention.head_count_kv", heads);
  if (heads % kvHeads !== 0) {
    fields.fail("attention.head_count_kv", `of ${kvHeads} does not divide ${heads} heads`);
  }
  if (!fields.has("attention.key_length") && hiddenSize % heads !== 0) {
    fields.fail("attention.head_count", `of ${heads} does not divide a width of ${hiddenSize}`);
  }
  return {
    // The rows of the embedding, which is checked against it; 1 where it is missing, which is said then.
    vocabSize: shapeOf("token_embd.weight")?.[0] ?? 1,
    contextLength: integer("context_length"),
    hiddenSize,
    layers: fields.integer("block_count", { most: MAX_LAYERS }),
    heads,
    kvHeads,
    headDim: Math.ceil(hiddenSize / heads),
    intermediateSize: integer("feed_forward_length"),
  };
}

function writeCommon(config: ModelConfig, factorTensors: readonly string[]): WrittenRope {
  if (config.position.kind !== "rope")
    throw new UnsupportedError("GGUF: learned positions of this architecture");
  if (config.window !== null && (config.fullAttentionLayers?.length ?? 0) > 0) {
    throw new UnsupportedError("GGUF: a sliding window in some of the layers");
  }
  const rope = writeGgufRope(config.position, config.headDim, factorTensors);
  const entries = new Map<string, GgufEntry>([
    ["vocab_size", u32(config.vocabSize)],
    ...writeSizes(config),
    ["attention.head_count_kv", u32(config.kvHeads)],
    ["attention.key_length", u32(config.headDim)],
    ["attention.value_length", u32(config.headDim)],
    ["attention.layer_norm_rms_epsilon", f32(config.normEps)],
    ...rope.entries,
  ]);
  // phi3's reader wants the field, and takes zero for none.
  if (config.window !== null || config.architecture === "phi3") {
    entries.set("attention.sliding_window", u32(config.window ?? 0));
  }
  return { ...rope, entries };
}

function writeSizes(config: ModelConfig): [string, GgufEntry][] {
  return [
    ["context_length", u32(config.contextLength)],
    ["embedding_length", u32(config.hiddenSize)],
    ["block_count", u32(config.layers)],
    ["feed_forward_length", u32(config.intermediateSize)],
    ["attention.head_count", u32(config.heads)],
  ];
}

function readGpt2(source: GgufSource): GgufConfig {
  const { fields, shapeOf } = source;
  const sizes = readSizes(source);
  return {
    ...sizes,
    architecture: "gpt2",
    norm: "layernorm",
    normEps: fields.positive("attention.layer_norm_epsilon"),
    position: { kind: "learned" },
    mlp: "gelu_tanh",
    bias: { qkv: true, output: true, mlp: true },
    fusedQkv: true,
    fusedMlp: false,
    qkNorm: false,
    window: null,
    tied: shapeOf("output.weight") === undefined,
  };
}

function writeGpt2(config: ModelConfig): WrittenRope {
  // llama.cpp computes the approximation by tanh, and a file cannot ask for another.
  if (config.mlp !== "gelu_tanh") throw new UnsupportedError(`GGUF: '${config.mlp}' of gpt2`);
  return {
    entries: new Map([
      ...writeSizes(config),
      ["attention.layer_norm_epsilon", f32(config.normEps)],
      ["vocab_size", u32(config.vocabSize)],
    ]),
    factors: new Map(),
  };
}

function unsupported(fields: Fields, name: string, value: unknown = fields.get(name)): never {
  throw new UnsupportedError(`${fields.file}: '${fields.path}${name}' of ${String(value)}`);
}
