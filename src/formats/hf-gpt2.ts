import type { ModelConfig } from "../model/config.js";
import { type ArchitectureConfig, expectDivides, MAX_LAYERS, unsupported } from "./hf-fields.js";
import type { Fields } from "./json.js";

/** The configuration of GPT-2. */
export function readGpt2(fields: Fields): ArchitectureConfig {
  for (const name of ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"]) {
    if (fields.boolean(name, false)) unsupported(fields, name, true);
  }
  if (!fields.boolean("scale_attn_weights", true)) unsupported(fields, "scale_attn_weights", false);

  const hiddenSize = fields.integer("n_embd");
  const heads = fields.integer("n_head");
  expectDivides(fields, "n_head", heads, hiddenSize);
  return {
    vocabSize: fields.integer("vocab_size"),
    // `n_ctx` is the same under the name that the first files had.
    contextLength: fields.integer(
      fields.has("n_positions") || !fields.has("n_ctx") ? "n_positions" : "n_ctx",
    ),
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

export function writeGpt2(config: ModelConfig): Record<string, unknown> {
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
