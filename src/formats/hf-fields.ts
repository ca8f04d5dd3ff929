import { UnsupportedError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import type { Fields } from "./json.js";

/** What a row of the table of architectures reads; ids of special tokens are read alike for all. */
export type ArchitectureConfig = Omit<ModelConfig, "architecture" | "bosId" | "eosIds">;

/** A count of blocks that no model comes near, so that a lying file cannot make us enumerate them. */
export const MAX_LAYERS = 4096;

/**
 * Fields by which relatives of these architectures compute something else, with the value that leaves it as it is;
 * null, false and an absence do in any case.
 */
const NEUTRAL: Readonly<Record<string, unknown>> = {
  // Factors of embeddings, residuals, scores and logits: Granite, Cohere, MiniCPM.
  embedding_multiplier: 1,
  residual_multiplier: 1,
  attention_multiplier: null,
  logits_scaling: 1,
  logit_scale: 1,
  scale_emb: 1,
  scale_depth: null,
  dim_model_base: null,
  query_pre_attn_scalar: null,
  // Caps of scores and logits: Gemma 2.
  attn_logit_softcapping: null,
  final_logit_softcapping: null,
  // Mixtures of experts.
  num_experts: 0,
  num_local_experts: 0,
  n_routed_experts: 0,
  // Norms, biases and orders of a block: OLMo, StableLM, Cohere, DBRX.
  use_qk_norm: null,
  qk_layernorm: null,
  use_parallel_residual: null,
  parallel_attn: null,
  clip_qkv: null,
  attn_output_gate: null,
  lm_head_bias: null,
  // Positions.
  alibi: null,
  rope_interleave: null,
  rope_interleaved: null,
  no_rope_layers: null,
  no_rope_layer_interval: null,
  sliding_window_pattern: null,
  attention_chunk_size: null,
};

/** Throws UnsupportedError naming a field that changes the result in a way that is not implemented. */
export function expectNoStrangeFields(fields: Fields): void {
  for (const [name, neutral] of Object.entries(NEUTRAL)) {
    const value = fields.get(name);
    if (value !== undefined && value !== false && value !== neutral) unsupported(fields, name, value);
  }
}

export function expectDivides(fields: Fields, name: string, heads: number, hiddenSize: number): void {
  if (hiddenSize % heads !== 0) fields.fail(name, `of ${heads} does not divide a width of ${hiddenSize}`);
}

export function unsupported(fields: Fields, name: string, value: unknown): never {
  throw new UnsupportedError(`${fields.file}: '${fields.path}${name}' of ${JSON.stringify(value)}`);
}
