import { UnsupportedError } from "../errors.js";
import { type Fields, show } from "./json.js";

/** What `adapter_config.json` says, as far as it matters to a LoRA adapter with trained token rows. */
export interface AdapterConfig {
  readonly rank: number;
  /** The scale of the adapter is `alpha / rank`. */
  readonly alpha: number;
  /** Share of an addition's input that training drops. */
  readonly dropout: number;
  /** Module names, or null where the file has a pattern instead. */
  readonly targets: string[] | null;
  /** Whether all layers with a target's name are adapted. */
  readonly allLayers: boolean;
  /** Ids of trained rows, by the name of the module that holds them. */
  readonly tokenIds: ReadonlyMap<string, number[]>;
}

/** Fields of PEFT's `LoraConfig` that change what the adapter computes. */
const CHANGES_MATHEMATICS = [
  "rank_pattern",
  "alpha_pattern",
  "use_dora",
  "use_qalora",
  "use_bdlora",
  "lora_bias",
  "modules_to_save",
  "target_parameters",
  "layer_replication",
  "alora_invocation_tokens",
  "arrow_config",
  "kasa_config",
  "monteclora_config",
  "velora_config",
];

/** Initialisations that leave the base as it is; the others subtract the first adapter from it. */
const PLAIN_INITIALISATIONS = ["true", "false", "gaussian", "eva", "orthogonal"];

/**
 * Reads the fields of `adapter_config.json`. Throws FormatError naming file and field, UnsupportedError naming the
 * field that changes the mathematics in a way that is not implemented.
 */
export function readAdapterConfig(fields: Fields): AdapterConfig {
  const { file } = fields;
  const unsupported = (name: string) => {
    throw new UnsupportedError(`${file}: '${name}' of ${show(fields.get(name))}`);
  };
  if (fields.string("peft_type") !== "LORA") unsupported("peft_type");
  if (fields.string("task_type", "CAUSAL_LM") !== "CAUSAL_LM") unsupported("task_type");
  if (fields.string("bias", "none") !== "none") unsupported("bias");
  for (const name of CHANGES_MATHEMATICS) if (!isOff(fields.get(name))) unsupported(name);
  const initialisation = fields.get("init_lora_weights") ?? true;
  if (!PLAIN_INITIALISATIONS.includes(String(initialisation))) unsupported("init_lora_weights");

  const rank = fields.integer("r");
  const alpha = fields.positive("lora_alpha");
  return {
    rank,
    // Rank-stabilised LoRA divides by the root of the rank: the same as a larger alpha.
    alpha: fields.boolean("use_rslora", false) ? alpha * Math.sqrt(rank) : alpha,
    dropout: readDropout(fields),
    targets: readTargets(fields),
    allLayers: isOff(fields.get("layers_to_transform")) && isOff(fields.get("exclude_modules")),
    tokenIds: readTokenIds(fields),
  };
}

function isOff(value: unknown): boolean {
  if (value === undefined || value === false) return true;
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}

function readDropout(fields: Fields): number {
  const rate = fields.get("lora_dropout") ?? 0;
  if (typeof rate !== "number" || !(rate >= 0 && rate < 1)) {
    fields.fail("lora_dropout", `must be a number in [0, 1), got ${show(rate)}`);
  }
  return rate;
}

function readTargets(fields: Fields): string[] | null {
  const targets = fields.get("target_modules");
  if (typeof targets === "string") return null;
  if (!Array.isArray(targets) || !targets.every((name) => typeof name === "string")) {
    fields.fail("target_modules", `must be a list of module names, got ${show(targets)}`);
  }
  return targets;
}

/** `{"embed_tokens": [ids], …}`, or a plain list, which PEFT takes for the embedding. */
function readTokenIds(fields: Fields): Map<string, number[]> {
  const name = "trainable_token_indices";
  const value = fields.get(name);
  const entries = Array.isArray(value)
    ? [["", value] as const]
    : Object.entries(fields.object(name)?.values ?? {});
  for (const [module, ids] of entries) {
    const isList = Array.isArray(ids) && ids.length > 0 && ids.every((id) => Number.isInteger(id) && id >= 0);
    if (!isList || new Set(ids).size !== ids.length) {
      fields.fail(`${name}.${module}`, `must be a list of token ids, each once, got ${show(ids)}`);
    }
  }
  return new Map(entries as [string, number[]][]);
}

/** The object for `adapter_config.json`, with every key that PEFT 0.21 writes. */
export function adapterConfigJson(options: {
  readonly rank: number;
  readonly alpha: number;
  readonly dropout: number;
  readonly targets: readonly string[];
  /** The only layers whose modules are adapted; null for all. */
  readonly layers: readonly number[] | null;
  readonly tokenIds: Readonly<Record<string, readonly number[]>> | null;
  /** Whether the base holds its linear layers as (in, out). */
  readonly fanInFanOut: boolean;
}): Record<string, unknown> {
  return {
    alora_invocation_tokens: null,
    alpha_pattern: {},
    arrow_config: null,
    auto_mapping: null,
    base_model_name_or_path: null,
    bias: "none",
    corda_config: null,
    ensure_weight_tying: false,
    eva_config: null,
    exclude_modules: null,
    fan_in_fan_out: options.fanInFanOut,
    inference_mode: true,
    init_lora_weights: true,
    kasa_config: null,
    layer_replication: null,
    layers_pattern: null,
    layers_to_transform: options.layers,
    loftq_config: {},
    lora_alpha: options.alpha,
    lora_bias: false,
    lora_dropout: options.dropout,
    lora_ga_config: null,
    megatron_config: null,
    megatron_core: "megatron.core",
    modules_to_save: null,
    monteclora_config: null,
    peft_type: "LORA",
    peft_version: "0.21.0",
    qalora_group_size: 16,
    r: options.rank,
    rank_pattern: {},
    revision: null,
    target_modules: options.targets,
    target_parameters: null,
    task_type: "CAUSAL_LM",
    trainable_token_indices: options.tokenIds,
    use_bdlora: null,
    use_dora: false,
    use_qalora: false,
    use_rslora: false,
    velora_config: null,
  };
}
