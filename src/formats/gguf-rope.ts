import { FormatError, UnsupportedError } from "../errors.js";
import type { PositionConfig, RopeScaling } from "../model/config.js";
import { ropeFrequencies } from "../model/rope-frequencies.js";
import { f32, type GgufEntry, string, u32 } from "./gguf-entry.js";
import type { Fields } from "./json.js";

/** The tensors that hold a divisor for every rotated pair, by their names in a file. */
export const ROPE_FACTORS = {
  every: "rope_freqs.weight",
  short: "rope_factors_short.weight",
  long: "rope_factors_long.weight",
} as const;

/** Values of tensors of a file that are part of its configuration, where it has them. */
export type FactorsOf = (tensor: string) => readonly number[] | undefined;

/**
 * Rotary positions.
 * @param fields those below the architecture's name
 * @param interleaved whether the file's rows are in llama.cpp's order for neighbours, which is one of whole heads
 * @throws FormatError for a missing or wrong field or tensor, UnsupportedError for a scaling that is not implemented
 */
export function readGgufRope(
  fields: Fields,
  headDim: number,
  interleaved: boolean,
  factorsOf: FactorsOf,
): Extract<PositionConfig, { kind: "rope" }> {
  const theta = fields.positive("rope.freq_base", 10000);
  const rotated = fields.integer("rope.dimension_count", { fallback: headDim });
  if (rotated > headDim || rotated % 2 !== 0) {
    fields.fail("rope.dimension_count", `of ${rotated} is no even part of a head of ${headDim}`);
  }
  if (interleaved && rotated !== headDim) {
    throw new UnsupportedError(
      `${fields.file}: '${fields.path}rope.dimension_count' of ${rotated} in heads of ${headDim}`,
    );
  }
  const scaling = readScaling(fields, theta, rotated, factorsOf);
  return { kind: "rope", theta, scaling, ...(rotated !== headDim && { rotaryDim: rotated }) };
}

function readScaling(fields: Fields, theta: number, rotated: number, factorsOf: FactorsOf): RopeScaling {
  const factors = (name: string) => {
    const found = factorsOf(name);
    if (found && (found.length !== rotated / 2 || !found.every((factor) => factor > 0))) {
      throw new FormatError(fields.file, `tensor '${name}' must hold ${rotated / 2} numbers above 0`);
    }
    return found;
  };
  const [every, short, long] = [ROPE_FACTORS.every, ROPE_FACTORS.short, ROPE_FACTORS.long].map(factors);
  if ((short === undefined) !== (long === undefined)) {
    const missing = short ? ROPE_FACTORS.long : ROPE_FACTORS.short;
    throw new FormatError(fields.file, `has no tensor '${missing}', but the other one of LongRoPE`);
  }
  const kind = fields.string("rope.scaling.type", short ? "longrope" : "none");
  const originalContextLength = () => fields.integer("rope.scaling.original_context_length");
  if (every && kind !== "none") {
    throw new UnsupportedError(
      `${fields.file}: '${fields.path}rope.scaling.type' of '${kind}' with ${ROPE_FACTORS.every}`,
    );
  }
  switch (kind) {
    case "none": {
      if (every)
        return (
          llama3Scaling(every, theta, rotated) ?? sameAtAnyLength(every, fields.integer("context_length"))
        );
      // What files before the type's own field have.
      const factor = fields.positive("rope.scale_linear", 1);
      return factor === 1 ? { kind: "none" } : { kind: "linear", factor };
    }
    case "linear":
      return { kind: "linear", factor: fields.positive("rope.scaling.factor") };
    case "yarn": {
      const factor = fields.positive("rope.scaling.factor");
      return {
        kind: "yarn",
        factor,
        originalContextLength: originalContextLength(),
        betaFast: fields.positive("rope.scaling.yarn_beta_fast", BETA_FAST),
        betaSlow: fields.positive("rope.scaling.yarn_beta_slow", BETA_SLOW),
        truncate: true,
        attentionFactor: yarnFactor(factor) * fields.positive("rope.scaling.attn_factor", 1),
      };
    }
    case "longrope":
      if (!short || !long) throw new FormatError(fields.file, `has no tensor '${ROPE_FACTORS.short}'`);
      return {
        kind: "longrope",
        shortFactors: short,
        longFactors: long,
        originalContextLength: originalContextLength(),
        attentionFactor: fields.positive("rope.scaling.attn_factor", 1),
      };
    default:
      throw new UnsupportedError(`${fields.file}: '${fields.path}rope.scaling.type' of '${kind}'`);
  }
}

/** What llama.cpp takes YaRN's bounds for where a file does not say, as the paper has them (section 3.2). */
const BETA_FAST = 32;
const BETA_SLOW = 1;

/** What YaRN scales cosines and sines by (section 3.4); a file has what is to be multiplied with it. */
function yarnFactor(factor: number): number {
  return 0.1 * Math.log(factor) + 1;
}

type Llama3 = Extract<RopeScaling, { kind: "llama3" }>;
type LongRope = Extract<RopeScaling, { kind: "longrope" }>;

/** A divisor for each pair, whatever the length. */
function sameAtAnyLength(factors: readonly number[], contextLength: number): LongRope {
  return {
    kind: "longrope",
    shortFactors: factors,
    longFactors: factors,
    originalContextLength: contextLength,
    attentionFactor: 1,
  };
}

/**
 * Llama 3's scaling from the divisors that a converter made of it, undefined where no such scaling has them. They
 * tell it up to a common factor of the original context and its two bounds; the lower of these is 1 in every model
 * that was published.
 */
function llama3Scaling(divisors: readonly number[], theta: number, rotated: number): Llama3 | undefined {
  const factor = divisors.reduce((most, divisor) => Math.max(most, divisor), 1);
  const frequencies = ropeFrequencies(rotated, theta, { kind: "none" }, 1);
  // On the ramp the share that is kept is linear in the frequency: share = slope · frequency - offset.
  const ramp = divisors.flatMap((divisor, i) => {
    const share = (1 / divisor - 1 / factor) / (1 - 1 / factor);
    return share > 1e-4 && share < 1 - 1e-4 ? [{ share, frequency: frequencies[i] as number }] : [];
  });
  const [first, last] = [ramp[0], ramp.at(-1)];
  if (!first || !last || first === last) return undefined;
  const slope = (first.share - last.share) / (first.frequency - last.frequency);
  const offset = slope * last.frequency - last.share;
  const lowFreqFactor = 1;
  const highFreqFactor = Number((lowFreqFactor + lowFreqFactor / offset).toPrecision(4));
  const context = Math.round(2 * Math.PI * slope * (highFreqFactor - lowFreqFactor));
  const scaling: Llama3 = {
    kind: "llama3",
    factor,
    lowFreqFactor,
    highFreqFactor,
    originalContextLength: context,
  };
  // Converters compute in f32, of whose rounding the slow end of the ramp makes `factor` times as much.
  const isSame = divisorsOf(scaling, theta, rotated).every(
    (divisor, i) => Math.abs(divisor / (divisors[i] as number) - 1) < 2e-5,
  );
  return isSame ? scaling : undefined;
}

function divisorsOf(scaling: Llama3, theta: number, rotated: number): number[] {
  const frequencies = ropeFrequencies(rotated, theta, scaling, 1);
  return Array.from(ropeFrequencies(rotated, theta, { kind: "none" }, 1), (frequency, i) => {
    return frequency / (frequencies[i] as number);
  });
}

/** What a file has of rotary positions: fields below the architecture's name, and tensors. */
export interface WrittenRope {
  readonly entries: ReadonlyMap<string, GgufEntry>;
  readonly factors: ReadonlyMap<string, readonly number[]>;
}

/**
 * @param takes the tensors of factors that llama.cpp reads for the architecture
 * @throws UnsupportedError for a scaling that a file of the architecture has no field for
 */
export function writeGgufRope(
  position: Extract<PositionConfig, { kind: "rope" }>,
  headDim: number,
  takes: readonly string[],
): WrittenRope {
  const { theta, scaling, rotaryDim = headDim } = position;
  const entries = new Map([
    ["rope.dimension_count", u32(rotaryDim)],
    ["rope.freq_base", f32(theta)],
  ]);
  const factors = new Map<string, readonly number[]>();
  const put = (name: string, values: readonly number[]) => {
    if (!takes.includes(name))
      throw new UnsupportedError(`GGUF: '${scaling.kind}' scaling of this architecture`);
    factors.set(name, values);
  };
  switch (scaling.kind) {
    case "none":
      break;
    case "linear":
      entries.set("rope.scaling.type", string("linear"));
      entries.set("rope.scaling.factor", f32(scaling.factor));
      break;
    case "llama3":
      put(ROPE_FACTORS.every, divisorsOf(scaling, theta, rotaryDim));
      break;
    case "yarn":
      if (!scaling.truncate) throw new UnsupportedError("GGUF: 'yarn' scaling without 'truncate'");
      entries.set("rope.scaling.type", string("yarn"));
      entries.set("rope.scaling.factor", f32(scaling.factor));
      entries.set("rope.scaling.original_context_length", u32(scaling.originalContextLength));
      entries.set("rope.scaling.yarn_beta_fast", f32(scaling.betaFast));
      entries.set("rope.scaling.yarn_beta_slow", f32(scaling.betaSlow));
      entries.set("rope.scaling.attn_factor", f32(scaling.attentionFactor / yarnFactor(scaling.factor)));
      break;
    case "longrope":
      if (isSameAtAnyLength(scaling) && takes.includes(ROPE_FACTORS.every)) {
        factors.set(ROPE_FACTORS.every, scaling.shortFactors);
        break;
      }
      put(ROPE_FACTORS.short, scaling.shortFactors);
      put(ROPE_FACTORS.long, scaling.longFactors);
      entries.set("rope.scaling.original_context_length", u32(scaling.originalContextLength));
      entries.set("rope.scaling.attn_factor", f32(scaling.attentionFactor));
      break;
    case "dynamic":
      throw new UnsupportedError("GGUF: 'dynamic' scaling, which llama.cpp has not");
  }
  return { entries, factors };
}

function isSameAtAnyLength({ shortFactors, longFactors, attentionFactor }: LongRope): boolean {
  return attentionFactor === 1 && shortFactors.every((factor, i) => factor === longFactors[i]);
}
