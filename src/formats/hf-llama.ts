import { UnsupportedError } from "../errors.js";
import { LLAMA_BLOCKS, type ModelConfig } from "../model/config.js";
import { type ArchitectureConfig, expectDivides, MAX_LAYERS, unsupported } from "./hf-fields.js";
import { type RopeContext, readRope, scaledContext, writeRope } from "./hf-rope.js";
import { type Fields, show } from "./json.js";

/** What the models after Llama call their weights. */
export function llamaFamily(className: string) {
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

/** Where the models after Llama differ in what they read. */
export interface LlamaVariant extends Pick<RopeContext, "isPartial" | "aliases"> {
  /** `head_dim` where the file has none; the width by heads where absent. */
  readonly headDim?: number;
}

/** The configuration of Llama, without bias or window. */
export function readLlama(fields: Fields, variant: LlamaVariant = {}): ArchitectureConfig {
  const activation = fields.string("hidden_act", "silu");
  if (activation !== "silu" && activation !== "swish") unsupported(fields, "hidden_act", activation);

  const hiddenSize = fields.integer("hidden_size");
  const heads = fields.integer("num_attention_heads");
  const kvHeads = fields.integer("num_key_value_heads", { fallback: heads });
  if (heads % kvHeads !== 0)
    fields.fail("num_key_value_heads", `of ${kvHeads} does not divide ${heads} heads`);
  if (!fields.has("head_dim") && variant.headDim === undefined) {
    expectDivides(fields, "num_attention_heads", heads, hiddenSize);
  }
  const headDim = fields.integer("head_dim", { fallback: variant.headDim ?? hiddenSize / heads });
  if (headDim % 2 !== 0) fields.fail("head_dim", `of ${headDim} is odd: rotary positions turn pairs`);
  const maxPositions = fields.integer("max_position_embeddings");
  const position = readRope(fields, { ...variant, headDim, maxPositions });

  return {
    vocabSize: fields.integer("vocab_size"),
    contextLength: scaledContext(position.scaling, maxPositions),
    hiddenSize,
    layers: fields.integer("num_hidden_layers", { most: MAX_LAYERS }),
    heads,
    kvHeads,
    headDim,
    intermediateSize: fields.integer("intermediate_size"),
    ...LLAMA_BLOCKS,
    normEps: fields.positive("rms_norm_eps"),
    position,
    tied: fields.boolean("tie_word_embeddings", false),
  };
}

/** The fields of all models after Llama. */
export function writeLlama(config: ModelConfig): Record<string, unknown> {
  return {
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    intermediate_size: config.intermediateSize,
    hidden_act: "silu",
    rms_norm_eps: config.normEps,
    ...writeRope(config),
    tie_word_embeddings: config.tied,
  };
}

/** Reads `sliding_window`, the same in all layers. transformers' window counts the position itself, as ours does. */
export function readWindow(fields: Fields, fallback: number | null): number | null {
  // Absent is the default of transformers, null is none.
  if (fields.values.sliding_window === undefined) return fallback;
  return fields.has("sliding_window") ? fields.integer("sliding_window") : null;
}

type Windows = Pick<ArchitectureConfig, "window" | "fullAttentionLayers">;

/**
 * Reads the window of Qwen's models: nothing counts unless `use_sliding_window` is true, and then it is that of the
 * layers from `max_window_layers` on, or of those that `layer_types` names.
 */
export function readLayerWindows(fields: Fields, layers: number): Windows {
  const isOn = fields.boolean("use_sliding_window", false);
  const window = isOn ? readWindow(fields, 4096) : null;
  const from = fields.integer("max_window_layers", { least: 0, fallback: 28 });
  const types = readLayerTypes(fields, layers);
  const isFull = (layer: number) =>
    types ? types[layer] === "full_attention" : window === null || layer < from;
  const full = Array.from({ length: layers }, (_, layer) => layer).filter(isFull);
  if (window === null && full.length < layers) {
    fields.fail("layer_types", "names sliding attention, but there is no 'sliding_window' in use");
  }
  if (full.length === layers) return { window: null };
  return full.length === 0 ? { window } : { window, fullAttentionLayers: full };
}

function readLayerTypes(fields: Fields, layers: number): readonly string[] | null {
  const types = fields.get("layer_types");
  if (types === undefined) return null;
  if (!Array.isArray(types) || types.length !== layers) {
    fields.fail("layer_types", `must be a list of ${layers} names, got ${show(types)}`);
  }
  const unknown = types.find((type) => type !== "full_attention" && type !== "sliding_attention");
  if (unknown !== undefined) unsupported(fields, "layer_types", unknown);
  return types;
}

/** The same window as fields of transformers 4 and, layer by layer, of transformers 5. */
export function writeLayerWindows(config: ModelConfig): Record<string, unknown> {
  const { window, layers, fullAttentionLayers: full = [] } = config;
  const isFull = (layer: number) => window === null || full.includes(layer);
  const all = Array.from({ length: layers }, (_, layer) => layer);
  const first = all.find((layer) => !isFull(layer)) ?? layers;
  return {
    use_sliding_window: window !== null,
    sliding_window: window,
    max_window_layers: first,
    layer_types: all.map((layer) => (isFull(layer) ? "full_attention" : "sliding_attention")),
  };
}

/** The window of an architecture that has one in all layers. Throws UnsupportedError where some have none. */
export function writeWindow(config: ModelConfig): Record<string, unknown> {
  if (config.fullAttentionLayers?.length) {
    throw new UnsupportedError(`a model of type '${config.architecture}' with a window in some layers only`);
  }
  return { sliding_window: config.window };
}
