import { UnsupportedError } from "../errors.js";
import type { ModelConfig } from "../model/config.js";
import type { ArchitectureConfig } from "./hf-fields.js";
import { unsupported } from "./hf-fields.js";
import { readGpt2, writeGpt2 } from "./hf-gpt2.js";
import {
  llamaFamily,
  readLayerWindows,
  readLlama,
  readWindow,
  writeLayerWindows,
  writeLlama,
  writeWindow,
} from "./hf-llama.js";
import type { Fields } from "./json.js";

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
    // Llama 2 and 3, TinyLlama, SmolLM2.
    case "llama":
      return {
        ...llamaFamily("LlamaForCausalLM"),
        read: (fields) => ({
          ...readLlama(fields),
          bias: { ...attentionBias(fields), mlp: fields.boolean("mlp_bias", false) },
        }),
        write: (config) => {
          if (config.window !== null) throw new UnsupportedError("a model of type 'llama' with a window");
          return {
            ...writeLlama(config),
            attention_bias: config.bias.qkv,
            mlp_bias: config.bias.mlp,
          };
        },
      };
    case "mistral":
      return {
        ...llamaFamily("MistralForCausalLM"),
        read: (fields) => ({ ...readLlama(fields), window: readWindow(fields, 4096) }),
        write: (config) => ({ ...writeLlama(config), ...writeWindow(config) }),
      };
    // Phi-3, 3.5 and 4 mini.
    case "phi3": {
      const family = llamaFamily("Phi3ForCausalLM");
      const names = { ...family.names, qkv: "self_attn.qkv_proj", gate_up: "mlp.gate_up_proj" };
      return { ...family, names, read: readPhi3, write: writePhi3 };
    }
    // Qwen 2 and 2.5.
    case "qwen2":
      return {
        ...llamaFamily("Qwen2ForCausalLM"),
        read: (fields) => {
          const config = readLlama(fields);
          const bias = { qkv: true, output: false, mlp: false };
          return { ...config, bias, ...readLayerWindows(fields, config.layers) };
        },
        write: (config) => ({ ...writeLlama(config), ...writeLayerWindows(config) }),
      };
    case "qwen3": {
      const family = llamaFamily("Qwen3ForCausalLM");
      return {
        ...family,
        names: { ...family.names, q_norm: "self_attn.q_norm", k_norm: "self_attn.k_norm" },
        read: (fields) => {
          const config = readLlama(fields, { headDim: 128 });
          const bias = { ...attentionBias(fields), mlp: false };
          return { ...config, bias, qkNorm: true, ...readLayerWindows(fields, config.layers) };
        },
        write: (config) => ({
          ...writeLlama(config),
          attention_bias: config.bias.qkv,
          ...writeLayerWindows(config),
        }),
      };
    }
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

/** `attention_bias` is that of q, k, v and of the output. */
function attentionBias(fields: Fields): { qkv: boolean; output: boolean } {
  const bias = fields.boolean("attention_bias", false);
  return { qkv: bias, output: bias };
}

function readPhi3(fields: Fields): ArchitectureConfig {
  if (fields.boolean("attention_bias", false)) unsupported(fields, "attention_bias", true);
  // transformers has it that `yarn` in a Phi-3 file was always LongRoPE.
  const config = readLlama(fields, { isPartial: true, aliases: { yarn: "longrope" } });
  return { ...config, fusedQkv: true, fusedMlp: true, window: readWindow(fields, null) };
}

function writePhi3(config: ModelConfig): Record<string, unknown> {
  // Where it is absent transformers takes 32000, and fails with a smaller vocabulary.
  return { ...writeLlama(config), ...writeWindow(config), pad_token_id: null };
}
