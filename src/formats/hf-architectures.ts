import { UnsupportedError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import { readRope, writeRope } from "./hf-rope.js";
import type { Fields } from "./json.js";

/** What a row of the table reads; ids of special tokens are read alike for all. */
export type ArchitectureConfig = Omit<ModelConfig, "architecture" | "bosId" | "eosIds">;

/** One architecture of Hugging Face: its configuration, and what it calls the weights. */
export interface Architecture {
  /** As in `architectures`. */
  readonly className: string;
  /** What names begin with; files saved without the language-model head leave it out. */
  readonly prefix: string;
  /** The list of blocks, behind the prefix. */
  readonly layers: string;
  /** Our names (`embed`, `layers.<i>.q` as `q`, …) to Hugging Face's; a head has no prefix. */
  readonly names: Readonly<Record<string, string>>;
  /** Whether the file holds linear layers as (in, out), ours being (out, in). */
  readonly transposed: boolean;
  readonly read: (fields: Fields) => ArchitectureConfig;
  readonly write: (config: ModelConfig) => Record<string, unknown>;
}

/** The row of a `model_type`. Throws UnsupportedError where there is none. */
export function architectureOf(modelType: string, where: string): Architecture {
  switch (modelType) {
    case "llama":
      return {
        ...llamaFamily("LlamaForCausalLM"),
        read: (fields) => {
          const attention = fields.boolean("attention_bias", false);
          const bias = { qkv: attention, output: attention, mlp: fields.boolean("mlp_bias", false) };
          return { ...readLlama(fields), bias };
        },
        write: (config) => ({
          ...writeLlama(config),
          attention_bias: config.bias.qkv,
          mlp_bias: config.bias.mlp,
        }),
      };
    case "mistral":
      return {
        ...llamaFamily("MistralForCausalLM"),
        // transformers' window counts the position itself, as ours does. Absent is its default, null is none.
        read: (fields) => ({
          ...readLlama(fields),
          window:
            fields.values.sliding_window === null
              ? null
              : fields.integer("sliding_window", { fallback: 4096 }),
        }),
        write: (config) => ({ ...writeLlama(config), sliding_window: config.window }),
      };
    case "gpt2":
      return {
        className: "GPT2LMHeadModel",
        prefix: "transformer.",
        layers: "h",
        names: {
          embed: "wte",
          positions: "wpe",
          attention_norm: "ln_1",
          qkv: "attn.c_attn",
          output: "attn.c_proj",
          mlp_norm: "ln_2",
          up: "mlp.c_fc",
          down: "mlp.c_proj",
          norm: "ln_f",
          head: "lm_head",
        },
        transposed: true,
        read: readGpt2,
        write: writeGpt2,
      };
    default:
      throw new UnsupportedError(`${where}: 'model_type' of '${modelType}'`);
  }
}

function llamaFamily(className: string) {
  return {
    className,
    prefix: "model.",
    layers: "layers",
    names: {
      embed: "embed_tokens",
      attention_norm: "input_layernorm",
      q: "self_attn.q_proj",
      k: "self_attn.k_proj",
      v: "self_attn.v_proj",
      output: "self_attn.o_proj",
      mlp_norm: "post_attention_layernorm",
      gate: "mlp.gate_proj",
      up: "mlp.up_proj",
      down: "mlp.down_proj",
      norm: "norm",
      head: "lm_head",
    },
    transposed: false,
  };
}

/** A count of blocks that no model comes near, so that a lying file cannot make us enumerate them. */
const MAX_LAYERS = 4096;

function readLlama(fields: Fields): ArchitectureConfig {
  const activation = fields.string("hidden_act", "silu");
  if (activation !== "silu" && activation !== "swish") unsupported(fields, "hidden_act", activation);

  const hiddenSize = fields.integer("hidden_size");
  const heads = fields.integer("num_attention_heads");
  const kvHeads = fields.integer("num_key_value_heads", { fallback: heads });
  if (heads % kvHeads !== 0)
    fields.fail("num_key_value_heads", `of ${kvHeads} does not divide ${heads} heads`);
  if (!fields.has("head_dim")) expectDivides(fields, "num_attention_heads", heads, hiddenSize);
  const headDim = fields.integer("head_dim", { fallback: hiddenSize / heads });
  if (headDim % 2 !== 0) fields.fail("head_dim", `of ${headDim} is odd: rotary positions turn pairs`);

  return {
    vocabSize: fields.integer("vocab_size"),
    contextLength: fields.integer("max_position_embeddings"),
    hiddenSize,
    layers: fields.integer("num_hidden_layers", { most: MAX_LAYERS }),
    heads,
    kvHeads,
    headDim,
    intermediateSize: fields.integer("intermediate_size"),
    norm: "rmsnorm",
    normEps: fields.positive("rms_norm_eps"),
    position: readRope(fields),
    mlp: "swiglu",
    bias: { qkv: false, output: false, mlp: false },
    fusedQkv: false,
    fusedMlp: false,
    qkNorm: false,
    window: null,
    tied: fields.boolean("tie_word_embeddings", false),
  };
}

function writeLlama(config: ModelConfig): Record<string, unknown> {
  return {
    vocab_size: config.vocabSize,
    max_position_embeddings: config.contextLength,
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    intermediate_size: config.intermediateSize,
    hidden_act: "silu",
    rms_norm_eps: config.normEps,
    ...writeRope(config.position),
    tie_word_embeddings: config.tied,
  };
}

function readGpt2(fields: Fields): ArchitectureConfig {
  for (const name of ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"]) {
    if (fields.boolean(name, false)) unsupported(fields, name, true);
  }
  if (!fields.boolean("scale_attn_weights", true)) unsupported(fields, "scale_attn_weights", false);

  const hiddenSize = fields.integer("n_embd");
  const heads = fields.integer("n_head");
  expectDivides(fields, "n_head", heads, hiddenSize);
  return {
    vocabSize: fields.integer("vocab_size"),
    contextLength: fields.integer("n_positions"),
    hiddenSize,
    layers: fields.integer("n_layer", { most: MAX_LAYERS }),
    heads,
    kvHeads: heads,
    headDim: hiddenSize / heads,
    intermediateSize: fields.integer("n_inner", { fallback: 4 * hiddenSize }),
    norm: "layernorm",
    normEps: fields.positive("layer_norm_epsilon"),
    position: { kind: "learned" },
    mlp: readGelu(fields),
    bias: { qkv: true, output: true, mlp: true },
    fusedQkv: true,
    fusedMlp: false,
    qkNorm: false,
    window: null,
    tied: fields.boolean("tie_word_embeddings", true),
  };
}

function readGelu(fields: Fields): "gelu_tanh" | "gelu_erf" {
  const activation = fields.string("activation_function", "gelu_new");
  switch (activation) {
    case "gelu_new":
    case "gelu_pytorch_tanh":
      return "gelu_tanh";
    case "gelu":
      return "gelu_erf";
    default:
      return unsupported(fields, "activation_function", activation);
  }
}

function writeGpt2(config: ModelConfig): Record<string, unknown> {
  return {
    vocab_size: config.vocabSize,
    n_positions: config.contextLength,
    n_embd: config.hiddenSize,
    n_layer: config.layers,
    n_head: config.heads,
    n_inner: config.intermediateSize,
    activation_function: config.mlp === "gelu_tanh" ? "gelu_new" : "gelu",
    layer_norm_epsilon: config.normEps,
    // Dropout is 0.1 where these are absent; it does not act when the model runs, but does when it is trained on.
    attn_pdrop: 0,
    embd_pdrop: 0,
    resid_pdrop: 0,
    tie_word_embeddings: config.tied,
  };
}

function expectDivides(fields: Fields, name: string, heads: number, hiddenSize: number): void {
  if (hiddenSize % heads !== 0) fields.fail(name, `of ${heads} does not divide a width of ${hiddenSize}`);
}

function unsupported(fields: Fields, name: string, value: unknown): never {
  throw new UnsupportedError(`${fields.file}: '${fields.path}${name}' of ${JSON.stringify(value)}`);
}
