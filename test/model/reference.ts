import type { ModelConfig } from "../../src/model/config.js";
import type { Overlay } from "../../src/model/lora.js";
import type { Model } from "../../src/model/model.js";

/** The whole model in float64, from the formulas: nothing here is shared with `src`. */

type Row = number[];

/** Weights by name, and what an overlay lays over them. */
export interface ReferenceModel {
  readonly config: ModelConfig;
  readonly weights: Map<string, Float64Array>;
  readonly loras: Map<string, { a: Float64Array; b: Float64Array; scale: number }>;
  /** Rows by token id. */
  readonly input: Map<number, Float64Array>;
  readonly output: Map<number, Float64Array>;
}

/** Reads a model, with its overlay, from the backend. */
export async function referenceOf(model: Model, overlay?: Overlay): Promise<ReferenceModel> {
  const { config } = model;
  const weights = new Map<string, Float64Array>();
  const loras: ReferenceModel["loras"] = new Map();
  for (const [name, own] of model.weights.entries()) {
    const tensor = overlay?.weight?.(name) ?? own;
    weights.set(name, Float64Array.from(await tensor.read()));
    const lora = overlay?.lora(name.replace(/\.weight$/, ""));
    if (!lora || !name.endsWith(".weight")) continue;
    const [a, b] = [Float64Array.from(await lora.a.read()), Float64Array.from(await lora.b.read())];
    loras.set(name.replace(/\.weight$/, ""), { a, b, scale: lora.scale });
  }
  const [input, output] = [new Map<number, Float64Array>(), new Map<number, Float64Array>()];
  const rows = overlay?.rows;
  if (rows) {
    const [inputs, outputs] = [await rows.input.read(), await rows.output.read()];
    for (const [i, id] of rows.ids.entries()) {
      const range = [i * config.hiddenSize, (i + 1) * config.hiddenSize] as const;
      input.set(id, Float64Array.from(inputs.slice(...range)));
      // Tied rows are one: whoever changes the one changes the other.
      output.set(
        id,
        config.tied ? (input.get(id) as Float64Array) : Float64Array.from(outputs.slice(...range)),
      );
    }
  }
  return { config, weights, loras, input, output };
}

const dot = (w: Float64Array, offset: number, x: Row) =>
  x.reduce((sum, value, i) => sum + value * (w[offset + i] ?? 0), 0);

function multiply(w: Float64Array, x: Row): Row {
  return Array.from({ length: w.length / x.length }, (_, row) => dot(w, row * x.length, x));
}

function linear(m: ReferenceModel, name: string, x: Row): Row {
  const bias = m.weights.get(`${name}.bias`);
  const y = multiply(weight(m, name), x).map((value, i) => value + (bias?.[i] ?? 0));
  const lora = m.loras.get(name);
  if (!lora) return y;
  const change = multiply(lora.b, multiply(lora.a, x));
  return y.map((value, i) => value + lora.scale * (change[i] ?? 0));
}

function weight(m: ReferenceModel, name: string): Float64Array {
  const found = m.weights.get(`${name}.weight`);
  if (!found) throw new Error(`no weight ${name}`);
  return found;
}

function norm(m: ReferenceModel, name: string, x: Row): Row {
  const w = weight(m, name);
  const isLayer = m.config.norm === "layernorm";
  const mean = isLayer ? x.reduce((a, b) => a + b) / x.length : 0;
  const square = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  const bias = m.weights.get(`${name}.bias`);
  return x.map(
    (value, i) => ((value - mean) / Math.sqrt(square + m.config.normEps)) * (w[i] ?? 0) + (bias?.[i] ?? 0),
  );
}

/** x (heads · head_dim) with every head divided by its root mean square. */
function headNorm(m: ReferenceModel, name: string, x: Row): Row {
  if (!m.config.qkNorm) return x;
  const { headDim } = m.config;
  return Array.from({ length: x.length / headDim }, (_, h) =>
    norm({ ...m, config: { ...m.config, norm: "rmsnorm" } }, name, x.slice(h * headDim, (h + 1) * headDim)),
  ).flat();
}

/** The angle that pair `i` of `pairs` turns by per position, in a sequence of `length`, and what scales the result. */
function turn(position: ModelConfig["position"], i: number, pairs: number, length: number): [number, number] {
  if (position.kind !== "rope") throw new Error("no rotary positions");
  const { theta, scaling } = position;
  const plain = 1 / theta ** (i / pairs);
  switch (scaling.kind) {
    case "none":
      return [plain, 1];
    case "linear":
      return [plain / scaling.factor, 1];
    case "llama3": {
      const { factor, lowFreqFactor: low, highFreqFactor: high, originalContextLength: old } = scaling;
      const wavelength = (2 * Math.PI) / plain;
      if (wavelength < old / high) return [plain, 1];
      if (wavelength > old / low) return [plain / factor, 1];
      const smooth = (old / wavelength - low) / (high - low);
      return [(1 - smooth) * (plain / factor) + smooth * plain, 1];
    }
    case "dynamic": {
      const { factor, originalContextLength: old } = scaling;
      const longest = Math.max(length, old);
      const base = theta * ((factor * longest) / old - (factor - 1)) ** (pairs / (pairs - 1));
      return [1 / base ** (i / pairs), 1];
    }
    case "yarn": {
      const { factor, originalContextLength: old, betaFast, betaSlow, truncate, attentionFactor } = scaling;
      const bound = (turns: number, whole: (x: number) => number) => {
        const pair = (pairs * Math.log(old / (turns * 2 * Math.PI))) / Math.log(theta);
        return truncate ? whole(pair) : pair;
      };
      const low = Math.max(bound(betaFast, Math.floor), 0);
      const high = Math.min(bound(betaSlow, Math.ceil), 2 * pairs - 1);
      const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)));
      return [(plain / factor) * ramp + plain * (1 - ramp), attentionFactor];
    }
    case "longrope": {
      const { shortFactors, longFactors, originalContextLength: old, attentionFactor } = scaling;
      const factors = length > old ? longFactors : shortFactors;
      return [plain / (factors[i] ?? Number.NaN), attentionFactor];
    }
  }
}

function rotate(m: ReferenceModel, x: Row, at: number, length: number): Row {
  const { position, headDim } = m.config;
  if (position.kind !== "rope") return x;
  const rotated = position.rotaryDim ?? headDim;
  const pairs = rotated / 2;
  return x.map((value, i) => {
    const place = i % headDim;
    if (place >= rotated) return value;
    const [frequency, scale] = turn(position, place % pairs, pairs, length);
    const isFirst = place < pairs;
    const other = x[isFirst ? i + pairs : i - pairs] ?? 0;
    const angle = at * frequency;
    return scale * (value * Math.cos(angle) + (isFirst ? -other : other) * Math.sin(angle));
  });
}

function attend(
  m: ReferenceModel,
  layer: number,
  { q, keys, values, at }: { q: Row; keys: Row[]; values: Row[]; at: number },
): Row {
  const { heads, kvHeads, headDim } = m.config;
  const window = m.config.fullAttentionLayers?.includes(layer) ? null : m.config.window;
  const first = window === null ? 0 : Math.max(0, at - window + 1);
  return Array.from({ length: heads }, (_, h) => {
    const from = Math.floor((h * kvHeads) / heads) * headDim;
    const query = q.slice(h * headDim, (h + 1) * headDim);
    const scores = keys
      .slice(first, at + 1)
      .map((k) => query.reduce((sum, value, i) => sum + value * (k[from + i] ?? 0), 0) / Math.sqrt(headDim));
    const weights = softmax(scores);
    return query.map((_, i) =>
      weights.reduce((sum, p, s) => sum + p * (values[first + s]?.[from + i] ?? 0), 0),
    );
  }).flat();
}

export function softmax(x: ArrayLike<number>): number[] {
  const most = Math.max(...Array.from(x));
  const exp = Array.from(x, (value) => Math.exp(value - most));
  const sum = exp.reduce((a, b) => a + b, 0);
  return exp.map((value) => value / sum);
}

function mlp(m: ReferenceModel, layer: string, x: Row): Row {
  const { fusedMlp, intermediateSize, mlp } = m.config;
  const both = fusedMlp ? linear(m, `${layer}.gate_up`, x) : [];
  const up = fusedMlp ? both.slice(intermediateSize) : linear(m, `${layer}.up`, x);
  if (mlp === "swiglu") {
    const gate = fusedMlp ? both.slice(0, intermediateSize) : linear(m, `${layer}.gate`, x);
    return up.map((value, i) => (value * (gate[i] ?? 0)) / (1 + Math.exp(-(gate[i] ?? 0))));
  }
  return up.map((v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))));
}

const plus = (a: Row, b: Row) => a.map((value, i) => value + (b[i] ?? 0));

/**
 * The logits after every id of one sequence.
 * @param perturbation (ids, hidden) in one row: added to the input embeddings
 */
export function referenceLogits(
  m: ReferenceModel,
  ids: readonly number[],
  perturbation?: ArrayLike<number>,
): Row[] {
  const { config } = m;
  const d = config.hiddenSize;
  const embed = weight(m, "embed");
  let xs: Row[] = ids.map((id, t) => {
    const row = Array.from(m.input.get(id) ?? embed.slice(id * d, (id + 1) * d));
    const x = row.map((value, i) => value + (perturbation?.[t * d + i] ?? 0));
    if (config.position.kind === "rope") return x;
    return plus(x, Array.from(weight(m, "positions").slice(t * d, (t + 1) * d)));
  });
  const [qWidth, kvWidth] = [config.heads * config.headDim, config.kvHeads * config.headDim];
  for (let i = 0; i < config.layers; i++) {
    const layer = `layers.${i}`;
    const projected = xs.map((x, t) => {
      const normed = norm(m, `${layer}.attention_norm`, x);
      const all = config.fusedQkv
        ? linear(m, `${layer}.qkv`, normed)
        : ["q", "k", "v"].flatMap((part) => linear(m, `${layer}.${part}`, normed));
      const [q, k] = [
        headNorm(m, `${layer}.q_norm`, all.slice(0, qWidth)),
        headNorm(m, `${layer}.k_norm`, all.slice(qWidth, qWidth + kvWidth)),
      ].map((x) => rotate(m, x, t, ids.length)) as [Row, Row];
      return { q, k, v: all.slice(qWidth + kvWidth) };
    });
    const [keys, values] = [projected.map(({ k }) => k), projected.map(({ v }) => v)];
    xs = xs.map((x, at) => {
      const mixed = attend(m, i, { q: projected[at]?.q ?? [], keys, values, at });
      return plus(x, linear(m, `${layer}.output`, mixed));
    });
    xs = xs.map((x) => {
      const inner = mlp(m, layer, norm(m, `${layer}.mlp_norm`, x));
      return plus(x, linear(m, `${layer}.down`, inner));
    });
  }
  const headWeight = weight(m, config.tied ? "embed" : "head");
  return xs.map((x) => {
    const last = norm(m, "norm", x);
    const logits = multiply(headWeight, last);
    for (const [id, row] of m.output) logits[id] = dot(row, 0, last);
    return logits;
  });
}
