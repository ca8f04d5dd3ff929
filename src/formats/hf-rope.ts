import { UnsupportedError } from "../errors.js";
import type { ModelConfig, PositionConfig, RopeScaling } from "../model/config.js";
import type { Fields } from "./json.js";

/** What rotary fields are read with. */
export interface RopeContext {
  readonly headDim: number;
  /** `max_position_embeddings`: what the original context defaults to. */
  readonly maxPositions: number;
  /** Whether the architecture rotates a part of a head where `partial_rotary_factor` says so. */
  readonly isPartial?: boolean;
  /** Other names of scalings. */
  readonly aliases?: Readonly<Record<string, string>>;
}

/** Keys of `rope_scaling` and `rope_parameters` that transformers reads for a scaling that is implemented here. */
const KNOWN_KEYS = [
  "rope_type",
  "type",
  "rope_theta",
  "partial_rotary_factor",
  "factor",
  "original_max_position_embeddings",
  "attention_factor",
  "low_freq_factor",
  "high_freq_factor",
  "beta_fast",
  "beta_slow",
  "mscale",
  "mscale_all_dim",
  "truncate",
  "short_factor",
  "long_factor",
  // Of YaRN's first code: says that the weights were trained so, and changes nothing.
  "finetuned",
];

/**
 * Rotary positions from either dialect of `config.json`: transformers 5 has `rope_parameters`, transformers 4
 * `rope_theta` and `rope_scaling` (whose `rope_type` older files call `type`). Where a file has both, transformers
 * takes `rope_scaling`.
 * Throws FormatError for a missing or wrong field, UnsupportedError for a scaling that is not implemented.
 */
export function readRope(fields: Fields, context: RopeContext): Extract<PositionConfig, { kind: "rope" }> {
  const nested = fields.object("rope_scaling") ?? fields.object("rope_parameters");
  const theta = (nested?.has("rope_theta") ? nested : fields).positive("rope_theta", 10000);
  const rotaryDim = readRotaryDim(nested?.has("partial_rotary_factor") ? nested : fields, context);
  const scaling = nested ? readScaling(fields, nested, { ...context, headDim: rotaryDim }) : null;
  return {
    kind: "rope",
    theta,
    scaling: scaling ?? { kind: "none" },
    ...(rotaryDim < context.headDim && { rotaryDim }),
  };
}

/** How many numbers of a head are rotated. */
function readRotaryDim(fields: Fields, { headDim, isPartial = false }: RopeContext): number {
  const name = "partial_rotary_factor";
  const share = fields.positive(name, 1);
  if (share !== 1 && !isPartial)
    throw new UnsupportedError(`${fields.file}: '${fields.path}${name}' of ${share}`);
  const rotaryDim = Math.floor(headDim * share);
  if (share > 1 || rotaryDim < 2 || rotaryDim % 2 !== 0) {
    fields.fail(name, `of ${share} does not rotate an even part of a head of ${headDim}`);
  }
  return rotaryDim;
}

function readScaling(
  top: Fields,
  fields: Fields,
  { headDim, maxPositions, aliases = {} }: RopeContext,
): RopeScaling {
  const unknown = Object.keys(fields.values).find((key) => !KNOWN_KEYS.includes(key) && fields.has(key));
  if (unknown !== undefined) throw new UnsupportedError(`${fields.file}: '${fields.path}${unknown}'`);

  const field = fields.has("rope_type") ? "rope_type" : "type";
  const kind = fields.string(field, "default");
  const originalContextLength = () => {
    const name = "original_max_position_embeddings";
    return (top.has(name) ? top : fields).integer(name, { fallback: maxPositions });
  };
  switch (aliases[kind] ?? kind) {
    case "default":
      return { kind: "none" };
    case "linear":
      return { kind: "linear", factor: fields.positive("factor") };
    case "dynamic":
      return { kind: "dynamic", factor: fields.positive("factor"), originalContextLength: maxPositions };
    case "llama3":
      return {
        kind: "llama3",
        factor: fields.positive("factor"),
        lowFreqFactor: fields.positive("low_freq_factor"),
        highFreqFactor: fields.positive("high_freq_factor"),
        originalContextLength: originalContextLength(),
      };
    case "yarn":
      return readYarn(fields, originalContextLength(), maxPositions);
    // `su` is what files called it before its paper had a name.
    case "su":
    case "longrope": {
      const original = originalContextLength();
      const factor = fields.positive("factor", maxPositions / original);
      return {
        kind: "longrope",
        shortFactors: fields.positives("short_factor", headDim / 2),
        longFactors: fields.positives("long_factor", headDim / 2),
        originalContextLength: original,
        attentionFactor: fields.positive("attention_factor", longropeAttentionFactor(factor, original)),
      };
    }
    default:
      throw new UnsupportedError(`${fields.file}: '${fields.path}${field}' of '${kind}'`);
  }
}

/** √(1 + ln factor / ln original), as Phi-3 was trained with. */
function longropeAttentionFactor(factor: number, originalContextLength: number): number {
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalContextLength));
}

function readYarn(fields: Fields, originalContextLength: number, maxPositions: number): RopeScaling {
  const factor = fields.positive("factor", maxPositions / originalContextLength);
  return {
    kind: "yarn",
    factor,
    originalContextLength,
    betaFast: fields.positive("beta_fast", 32),
    betaSlow: fields.positive("beta_slow", 1),
    truncate: fields.boolean("truncate", true),
    attentionFactor: fields.positive("attention_factor", yarnAttentionFactor(fields, factor)),
  };
}

/** 0.1 ln(factor) + 1, section 3.4 of the paper, or the quotient of two with slopes of their own, as DeepSeek has it. */
function yarnAttentionFactor(fields: Fields, factor: number): number {
  const scale = (slope: number) => (factor <= 1 ? 1 : 0.1 * slope * Math.log(factor) + 1);
  if (!fields.get("mscale") || !fields.get("mscale_all_dim")) return scale(1);
  return scale(fields.positive("mscale")) / scale(fields.positive("mscale_all_dim"));
}

/** The longest sequence of a model with that scaling, where `max_position_embeddings` is that of the original. */
export function scaledContext(scaling: RopeScaling, maxPositions: number): number {
  switch (scaling.kind) {
    case "dynamic":
      return Math.max(maxPositions, Math.floor(scaling.factor * maxPositions));
    case "yarn":
      return Math.max(maxPositions, Math.floor(scaling.factor * scaling.originalContextLength));
    default:
      return maxPositions;
  }
}

/**
 * `max_position_embeddings` and the rotary fields of both dialects.
 * @throws UnsupportedError where the model's positions are learned
 */
export function writeRope(config: ModelConfig): Record<string, unknown> {
  const { position, contextLength, headDim } = config;
  if (position.kind !== "rope") {
    throw new UnsupportedError(`a model of type '${config.architecture}' with learned positions`);
  }
  const { theta, scaling, rotaryDim } = position;
  const partial = rotaryDim === undefined ? {} : { partial_rotary_factor: rotaryDim / headDim };
  const fields = scalingFields(scaling, contextLength);
  const common = {
    max_position_embeddings: scaling.kind === "dynamic" ? scaling.originalContextLength : contextLength,
    rope_theta: theta,
    ...partial,
  };
  if (scaling.kind !== "longrope") {
    return {
      ...common,
      rope_scaling: scaling.kind === "none" ? null : fields,
      rope_parameters: { rope_theta: theta, ...partial, ...fields },
    };
  }
  const original = { original_max_position_embeddings: scaling.originalContextLength };
  // Phi-3 in transformers 4 refuses any but these three keys, and has the original length beside them.
  const { rope_type: type, ...rest } = fields;
  return {
    ...common,
    ...original,
    rope_scaling: { type, ...rest },
    rope_parameters: { rope_theta: theta, ...partial, ...fields, ...original },
  };
}

function scalingFields(scaling: RopeScaling, contextLength: number): Record<string, unknown> {
  switch (scaling.kind) {
    case "none":
      return { rope_type: "default" };
    case "linear":
    case "dynamic":
      return { rope_type: scaling.kind, factor: scaling.factor };
    case "llama3":
      return {
        rope_type: "llama3",
        factor: scaling.factor,
        low_freq_factor: scaling.lowFreqFactor,
        high_freq_factor: scaling.highFreqFactor,
        original_max_position_embeddings: scaling.originalContextLength,
      };
    case "yarn":
      return {
        rope_type: "yarn",
        factor: scaling.factor,
        original_max_position_embeddings: scaling.originalContextLength,
        attention_factor: scaling.attentionFactor,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
        truncate: scaling.truncate,
      };
    case "longrope": {
      const { originalContextLength: original, attentionFactor, shortFactors, longFactors } = scaling;
      const usual = longropeAttentionFactor(contextLength / original, original);
      // Nearer than f32 tells apart, as which other formats keep it.
      const isUsual = Math.abs(attentionFactor - usual) < 1e-6;
      return {
        rope_type: "longrope",
        short_factor: shortFactors,
        long_factor: longFactors,
        ...(!isUsual && { attention_factor: attentionFactor }),
      };
    }
  }
}
