import { blockOf, type WeightType } from "../dtype.js";

/** How rotary frequencies are stretched past the length that a model was first trained on. */
export type RopeScaling =
  | { readonly kind: "none" }
  | { readonly kind: "linear"; readonly factor: number }
  /** Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between. */
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalContextLength: number;
    }
  /** NTK-aware: past the original context theta grows with the length of the sequence, up to `factor` contexts. */
  | { readonly kind: "dynamic"; readonly factor: number; readonly originalContextLength: number }
  /** YaRN (Peng et al. 2023): as Llama 3.1, with a ramp over the pairs of a head. */
  | {
      readonly kind: "yarn";
      readonly factor: number;
      readonly originalContextLength: number;
      /** Pairs that turn more often than this in the original context keep their frequency. */
      readonly betaFast: number;
      /** Pairs that turn less often than this are slowed by the whole factor. */
      readonly betaSlow: number;
      /** Whether the ramp begins and ends at whole pairs. */
      readonly truncate: boolean;
      /** Factor of the cosines and sines. */
      readonly attentionFactor: number;
    }
  /** LongRoPE (Ding et al. 2024): a divisor of its own for every pair, other ones past the original context. */
  | {
      readonly kind: "longrope";
      /** (rotated / 2), as are the long ones. */
      readonly shortFactors: readonly number[];
      readonly longFactors: readonly number[];
      readonly originalContextLength: number;
      /** Factor of the cosines and sines, at every length. */
      readonly attentionFactor: number;
    };

/** Where a token's place comes from. */
export type PositionConfig =
  | { readonly kind: "learned" }
  | {
      readonly kind: "rope";
      readonly theta: number;
      readonly scaling: RopeScaling;
      /** How many numbers of a head are rotated, the first ones; all where absent. */
      readonly rotaryDim?: number;
    };

/**
 * A decoder-only transformer as data: one forward pass (`forward.ts`) reads it, so an architecture is a row in
 * the table of a format, not a class.
 */
export interface ModelConfig {
  /** The name of the architecture as Hugging Face's `model_type` has it: `llama`, `gpt2`, … */
  readonly architecture: string;
  /** Rows of the embedding. */
  readonly vocabSize: number;
  /** The longest sequence, in tokens. */
  readonly contextLength: number;
  /** Width of the residual stream. */
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  /** Heads of keys and values; divides `heads`. */
  readonly kvHeads: number;
  readonly headDim: number;
  /** Width inside the MLP. */
  readonly intermediateSize: number;
  readonly norm: "rmsnorm" | "layernorm";
  readonly normEps: number;
  readonly position: PositionConfig;
  /** `swiglu`: down(silu(gate x) · up x); the others: down(gelu(up x)). */
  readonly mlp: "swiglu" | "gelu_tanh" | "gelu_erf";
  /** Which linear layers have a bias: those of q, k, v; that of the attention's output; those of the MLP. */
  readonly bias: { readonly qkv: boolean; readonly output: boolean; readonly mlp: boolean };
  /** One matrix for q, k and v (rows in that order) instead of three. */
  readonly fusedQkv: boolean;
  /** One matrix for gate and up (rows in that order) instead of two. */
  readonly fusedMlp: boolean;
  /** Whether every head of q and k goes through an RMSNorm before it is rotated. */
  readonly qkNorm: boolean;
  /** Keys that a position sees, itself included; null for all before it. */
  readonly window: number | null;
  /** Layers in which a position sees all before it in spite of the window; none where absent. */
  readonly fullAttentionLayers?: readonly number[];
  /** Whether the output head is the embedding. */
  readonly tied: boolean;
  readonly bosId: number | null;
  /** Ids that end a generation. */
  readonly eosIds: readonly number[];
}

/** What the blocks of a Llama are made of; the architectures that came after it say what they do otherwise. */
export const LLAMA_BLOCKS = {
  norm: "rmsnorm",
  mlp: "swiglu",
  bias: { qkv: false, output: false, mlp: false },
  fusedQkv: false,
  fusedMlp: false,
  qkNorm: false,
  window: null,
} as const satisfies Partial<ModelConfig>;

/**
 * The weights that a configuration has, by our names, with shapes (out, in) for linear layers:
 * `embed`, `positions`, `layers.<i>.{attention_norm,q,k,v,qkv,q_norm,k_norm,output,mlp_norm,gate,up,gate_up,down}`,
 * `norm`, `head`; each with `.weight` or `.bias`.
 */
export function weightShapes(config: ModelConfig): Map<string, readonly number[]> {
  const { hiddenSize: d, intermediateSize: f, headDim } = config;
  const q = config.heads * headDim;
  const kv = config.kvHeads * headDim;
  const shapes = new Map<string, readonly number[]>();

  const linear = (name: string, out: number, input: number, bias: boolean) => {
    shapes.set(`${name}.weight`, [out, input]);
    if (bias) shapes.set(`${name}.bias`, [out]);
  };
  const norm = (name: string) => {
    shapes.set(`${name}.weight`, [d]);
    if (config.norm === "layernorm") shapes.set(`${name}.bias`, [d]);
  };

  shapes.set("embed.weight", [config.vocabSize, d]);
  if (config.position.kind === "learned") shapes.set("positions.weight", [config.contextLength, d]);
  for (let i = 0; i < config.layers; i++) {
    const layer = `layers.${i}`;
    norm(`${layer}.attention_norm`);
    if (config.fusedQkv) {
      linear(`${layer}.qkv`, q + 2 * kv, d, config.bias.qkv);
    } else {
      linear(`${layer}.q`, q, d, config.bias.qkv);
      linear(`${layer}.k`, kv, d, config.bias.qkv);
      linear(`${layer}.v`, kv, d, config.bias.qkv);
    }
    if (config.qkNorm) {
      shapes.set(`${layer}.q_norm.weight`, [headDim]);
      shapes.set(`${layer}.k_norm.weight`, [headDim]);
    }
    linear(`${layer}.output`, d, q, config.bias.output);
    norm(`${layer}.mlp_norm`);
    for (const part of mlpInputs(config)) {
      linear(`${layer}.${part}`, part === "gate_up" ? 2 * f : f, d, config.bias.mlp);
    }
    linear(`${layer}.down`, d, f, config.bias.mlp);
  }
  norm("norm");
  if (!config.tied) linear("head", config.vocabSize, d, false);
  return shapes;
}

/**
 * What each weight is stored as where the model is to be stored as `dtype`: the matrices of linear layers, the
 * embedding and the head; f16 where their rows are not whole blocks of it. Norms, biases and positions stay f32.
 * @param dtype one type for all, or that of the matrix with this name
 */
export function weightTypes(
  config: ModelConfig,
  dtype: WeightType | ((name: string) => WeightType),
): Map<string, WeightType> {
  const matrices = ["embed", ...(config.tied ? [] : ["head"]), ...linearLayers(config)];
  const shapes = weightShapes(config);
  return new Map(
    matrices.map((matrix) => {
      const name = `${matrix}.weight`;
      const [, cols = 0] = shapes.get(name) ?? [];
      const wanted = typeof dtype === "function" ? dtype(name) : dtype;
      return [name, cols % blockOf(wanted) === 0 ? wanted : "f16"];
    }),
  );
}

/** The names of the linear layers inside the blocks: what LoRA adapts by default. */
export function linearLayers(config: ModelConfig): string[] {
  const parts = [...(config.fusedQkv ? ["qkv"] : ["q", "k", "v"]), "output", ...mlpInputs(config), "down"];
  return Array.from({ length: config.layers }, (_, i) => parts.map((part) => `layers.${i}.${part}`)).flat();
}

/** The linear layers that the MLP's input goes through. */
function mlpInputs(config: ModelConfig): string[] {
  if (config.fusedMlp) return ["gate_up"];
  return config.mlp === "swiglu" ? ["gate", "up"] : ["up"];
}

/** Keys that a position of this layer sees, itself included; null for all before it. */
export function windowOf(config: ModelConfig, layer: number): number | null {
  return config.fullAttentionLayers?.includes(layer) ? null : config.window;
}
