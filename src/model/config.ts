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
    };

/** Where a token's place comes from. */
export type PositionConfig =
  | { readonly kind: "learned" }
  | { readonly kind: "rope"; readonly theta: number; readonly scaling: RopeScaling };

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
  /** Keys that a position sees, itself included; null for all before it. */
  readonly window: number | null;
  /** Whether the output head is the embedding. */
  readonly tied: boolean;
  readonly bosId: number | null;
  /** Ids that end a generation. */
  readonly eosIds: readonly number[];
}

/**
 * The weights that a configuration has, by our names, with shapes (out, in) for linear layers:
 * `embed`, `positions`, `layers.<i>.{attention_norm,q,k,v,qkv,output,mlp_norm,gate,up,down}`, `norm`, `head`;
 * each with `.weight` or `.bias`.
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
    linear(`${layer}.output`, d, q, config.bias.output);
    norm(`${layer}.mlp_norm`);
    if (config.mlp === "swiglu") linear(`${layer}.gate`, f, d, config.bias.mlp);
    linear(`${layer}.up`, f, d, config.bias.mlp);
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
  const parts = [
    ...(config.fusedQkv ? ["qkv"] : ["q", "k", "v"]),
    "output",
    ...(config.mlp === "swiglu" ? ["gate"] : []),
    "up",
    "down",
  ];
  return Array.from({ length: config.layers }, (_, i) => parts.map((part) => `layers.${i}.${part}`)).flat();
}
