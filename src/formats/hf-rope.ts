import { UnsupportedError } from "../errors.js";
import type { PositionConfig, RopeScaling } from "../model/config.js";
import type { Fields } from "./json.js";

/**
 * Rotary positions from either dialect of `config.json`: transformers 5 has `rope_parameters`, transformers 4
 * `rope_theta` and `rope_scaling` (whose `rope_type` older files call `type`).
 * Throws FormatError for a missing or wrong field, UnsupportedError for a scaling that is not implemented.
 */
export function readRope(fields: Fields): PositionConfig {
  const nested = fields.object("rope_parameters") ?? fields.object("rope_scaling");
  const theta = (nested?.has("rope_theta") ? nested : fields).positive("rope_theta", 10000);
  const rotated = (nested?.has("partial_rotary_factor") ? nested : fields).positive(
    "partial_rotary_factor",
    1,
  );
  if (rotated !== 1) throw new UnsupportedError(`${fields.file}: 'partial_rotary_factor' of ${rotated}`);
  return { kind: "rope", theta, scaling: nested ? readScaling(nested) : { kind: "none" } };
}

function readScaling(fields: Fields): RopeScaling {
  const field = fields.has("rope_type") ? "rope_type" : "type";
  const kind = fields.string(field, "default");
  switch (kind) {
    case "default":
      return { kind: "none" };
    case "linear":
      return { kind: "linear", factor: fields.positive("factor") };
    case "llama3":
      return {
        kind: "llama3",
        factor: fields.positive("factor"),
        lowFreqFactor: fields.positive("low_freq_factor"),
        highFreqFactor: fields.positive("high_freq_factor"),
        originalContextLength: fields.integer("original_max_position_embeddings"),
      };
    default:
      throw new UnsupportedError(`${fields.file}: '${fields.path}${field}' of '${kind}'`);
  }
}

/** The same fields in both dialects, as each reader ignores the other's. */
export function writeRope(position: PositionConfig): Record<string, unknown> {
  if (position.kind !== "rope") return {};
  const scaling = scalingFields(position.scaling);
  return {
    rope_theta: position.theta,
    rope_scaling: position.scaling.kind === "none" ? null : scaling,
    rope_parameters: { rope_theta: position.theta, ...scaling },
  };
}

function scalingFields(scaling: RopeScaling): Record<string, unknown> {
  switch (scaling.kind) {
    case "none":
      return { rope_type: "default" };
    case "linear":
      return { rope_type: "linear", factor: scaling.factor };
    case "llama3":
      return {
        rope_type: "llama3",
        factor: scaling.factor,
        low_freq_factor: scaling.lowFreqFactor,
        high_freq_factor: scaling.highFreqFactor,
        original_max_position_embeddings: scaling.originalContextLength,
      };
  }
}
