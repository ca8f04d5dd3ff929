import { add } from "../ops/add.js";
import { attention } from "../ops/attention.js";
import { columns } from "../ops/columns.js";
import { embedding } from "../ops/embedding.js";
import { gelu } from "../ops/gelu.js";
import { layernorm } from "../ops/layernorm.js";
import { linear, matmul } from "../ops/matmul.js";
import { rmsnorm } from "../ops/rmsnorm.js";
import { rope } from "../ops/rope.js";
import { expectShape } from "../ops/shapes.js";
import { slice } from "../ops/slice.js";
import { swiglu } from "../ops/swiglu.js";
import { swigluFused } from "../ops/swiglu-fused.js";
import { transfer } from "../ops/transfer.js";
import { view } from "../ops/view.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { type ModelConfig, windowOf } from "./config.js";
import type { KVCache } from "./kv-cache.js";
import { adaptedLinear, type Overlay, weightUnder } from "./lora.js";
import type { Model, Stretch } from "./model.js";
import { passTables } from "./rope-tables.js";

/** What a pass runs with besides the model. */
export interface ForwardOptions {
  /** Sequences of equal length that the ids are made of; 1 by default. Shorter ones are padded on the right. */
  readonly batch?: number;
  /** Rows and low-rank additions over the weights. */
  readonly overlay?: Overlay | undefined;
  /** Keys and values of the positions before these ids; the new ones are appended. It holds `batch` sequences. */
  readonly cache?: KVCache;
  /**
   * How many of the ids of each sequence count, the others being padding on the right: the cache keeps so many, and
   * the next ids of each go on behind its own. All by default.
   */
  readonly counts?: readonly number[];
  /**
   * How long the sequences are to be of which this pass is a part: LongRoPE and dynamic scaling choose frequencies by
   * it. What the pass reaches where nothing is said.
   */
  readonly sequenceLength?: number;
  /**
   * Added to the input embeddings: (batch · length, hidden). Where it requires a gradient, it gets that of the
   * embeddings, and does so while all weights are frozen.
   */
  readonly perturbation?: Tensor | undefined;
}

/** How many ids a model with this overlay knows: the width of its logits. */
export function vocabularySize(config: ModelConfig, overlay?: Overlay): number {
  const appended = overlay?.rows?.ids.filter((id) => id >= config.vocabSize).length ?? 0;
  return config.vocabSize + appended;
}

/**
 * The residual stream after the last norm: (batch · length, hidden), from ids (batch · length).
 * @throws RangeError for an id outside the vocabulary, more positions than the context or the cache has, or a
 * perturbation of another shape
 */
export function forward(
  tape: Tape,
  model: Model,
  ids: ArrayLike<number>,
  options: ForwardOptions = {},
): Tensor {
  const { batch = 1, overlay, cache, counts, perturbation } = options;
  const { config } = model;
  const length = ids.length / batch;
  const position = cache?.length ?? 0;
  if (!Number.isInteger(length) || length < 1) {
    throw new RangeError(`forward: ${ids.length} ids do not make ${batch} sequences of one length`);
  }
  if (cache && batch !== cache.batch)
    throw new RangeError(`forward: the cache holds ${cache.batch} sequences, got a batch of ${batch}`);
  if (
    counts &&
    (counts.length !== batch || counts.some((n) => !(Number.isInteger(n) && n >= 0 && n <= length)))
  ) {
    throw new RangeError(`forward: counts must be ${batch} integers from 0 to ${length}, got ${counts}`);
  }
  if (position + length > config.contextLength) {
    throw new RangeError(
      `forward: ${position + length} positions, but the model's context has ${config.contextLength}`,
    );
  }
  cache?.reserve(length, (layer) => model.homeOf(layer));
  const starts = cache?.lengths ?? [];
  const positions = starts.some((start) => start !== position)
    ? tape.from(Uint32Array.from(starts))
    : undefined;
  const sequenceLength = Math.max(options.sequenceLength ?? 0, position + length);
  const place: Place = { batch, length, position, positions, sequenceLength, cache, overlay };

  let x = embed(tape, model, ids, place);
  if (perturbation) {
    expectShape("forward", "perturbation", perturbation, x.shape);
    x = add(tape, x, perturbation);
  }
  for (const stretch of model.stretches) x = runStretch(tape, model, stretch, x, place);
  cache?.advance(counts ?? length);
  return norm(tape, model, overlay, "norm", x);
}

/** Runs layers in their memory; the residual stream goes there and comes back. */
function runStretch(tape: Tape, model: Model, stretch: Stretch, x: Tensor, place: Place): Tensor {
  const { backend } = stretch;
  if (backend === model.backend) return runLayers(tape, model, stretch, x, place);
  const input = transfer(tape, x, backend);
  const positions = place.positions && transfer(tape, place.positions, backend);
  const there = { ...place, positions };
  return transfer(
    tape,
    tape.on(backend, () => runLayers(tape, model, stretch, input, there)),
    x.backend,
  );
}

function runLayers(tape: Tape, model: Model, { first, end }: Stretch, input: Tensor, place: Place): Tensor {
  let x = input;
  for (let layer = first; layer < end; layer++) {
    x = tape.block(x, (x) => attentionPart(tape, model, layer, x, place));
    x = tape.block(x, (x) => mlpPart(tape, model, layer, x, place.overlay));
  }
  return x;
}

/** Where a pass stands. */
interface Place {
  readonly batch: number;
  readonly length: number;
  /** Of the first id: of the longest sequence where a cache holds them at different lengths. */
  readonly position: number;
  /** That of each sequence, u32 (batch), where they differ. */
  readonly positions: Tensor | undefined;
  readonly sequenceLength: number;
  readonly cache: KVCache | undefined;
  readonly overlay: Overlay | undefined;
}

/** The head's own matrix: (vocabulary, hidden). */
export function headWeight(model: Model, overlay?: Overlay): Tensor {
  return weightUnder(model, overlay, model.config.tied ? "embed.weight" : "head.weight");
}

/**
 * Logits of rows of the residual stream: (rows, vocabulary), the overlay's rows included.
 */
export function head(tape: Tape, model: Model, x: Tensor, overlay?: Overlay): Tensor {
  const logits = linear(tape, x, headWeight(model, overlay), {
    stride: vocabularySize(model.config, overlay),
  });
  const rows = overlay?.rows;
  if (!rows) return logits;
  const own = matmul(tape, x, rows.output, { transposeB: true });
  return columns(tape, logits, own, tape.from(Uint32Array.from(rows.ids)));
}

function embed(tape: Tape, model: Model, ids: ArrayLike<number>, place: Place): Tensor {
  const { config } = model;
  const rows = place.overlay?.rows;
  const known = vocabularySize(config, place.overlay);
  // Ids that the overlay answers for are counted on from the end of the model's own table.
  const mapped = Uint32Array.from(ids, (id) => {
    if (!Number.isInteger(id) || id < 0 || id >= known) {
      throw new RangeError(`forward: token id ${id} is outside the vocabulary of ${known}`);
    }
    const row = rows ? rows.ids.indexOf(id) : -1;
    return row < 0 ? id : config.vocabSize + row;
  });
  const idTensor = tape.from(mapped);
  let x = embedding(tape, weightUnder(model, place.overlay, "embed.weight"), idTensor);
  if (rows) x = embedding(tape, rows.input, idTensor, { first: config.vocabSize, into: x });
  if (config.position.kind === "learned") {
    const starts = place.cache?.lengths;
    const positions = Uint32Array.from(
      ids,
      (_, i) => (starts?.[Math.floor(i / place.length)] ?? place.position) + (i % place.length),
    );
    x = add(
      tape,
      x,
      embedding(tape, weightUnder(model, place.overlay, "positions.weight"), tape.from(positions)),
    );
  }
  return x;
}

function norm(tape: Tape, model: Model, overlay: Overlay | undefined, name: string, x: Tensor): Tensor {
  const weight = weightUnder(model, overlay, `${name}.weight`);
  if (model.config.norm === "rmsnorm") return rmsnorm(tape, x, weight, model.config.normEps);
  return layernorm(tape, x, weight, weightUnder(model, overlay, `${name}.bias`), model.config.normEps);
}

/** x + attention(norm(x)) */
function attentionPart(tape: Tape, model: Model, layer: number, x: Tensor, place: Place): Tensor {
  const { config } = model;
  const { batch, length, position, positions, sequenceLength, cache, overlay } = place;
  const name = `layers.${layer}`;
  const normed = norm(tape, model, overlay, `${name}.attention_norm`, x);
  const projected = projections(tape, model, name, normed, overlay);
  let q = view(tape, projected.q, [batch, length, config.heads, config.headDim]);
  let k = view(tape, projected.k, [batch, length, config.kvHeads, config.headDim]);
  let v = view(tape, projected.v, [batch, length, config.kvHeads, config.headDim]);
  if (config.qkNorm) {
    q = rmsnorm(tape, q, weightUnder(model, overlay, `${name}.q_norm.weight`), config.normEps);
    k = rmsnorm(tape, k, weightUnder(model, overlay, `${name}.k_norm.weight`), config.normEps);
  }
  if (config.position.kind === "rope") {
    // Keys in a cache stay as they were turned, even where this sequence is long enough for other frequencies.
    const from = positions ? 0 : position;
    const { cos, sin, first } = passTables(tape, model, from, position + length - from, sequenceLength);
    q = rope(tape, q, cos, sin, { position: position - first, positions });
    k = rope(tape, k, cos, sin, { position: position - first, positions });
  }
  if (cache) ({ k, v } = cache.append(tape, layer, k, v, positions));
  const kvLength = position + length;
  const mixed = attention(tape, q, k, v, { window: windowOf(config, layer), kvLength, positions });
  const rows = view(tape, mixed, [batch * length, config.heads * config.headDim]);
  return adaptedLinear(tape, model, overlay, `${name}.output`, rows, x);
}

function projections(tape: Tape, model: Model, name: string, x: Tensor, overlay: Overlay | undefined) {
  const { config } = model;
  if (!config.fusedQkv) {
    const [q, k, v] = ["q", "k", "v"].map((part) =>
      adaptedLinear(tape, model, overlay, `${name}.${part}`, x),
    );
    return { q, k, v } as { q: Tensor; k: Tensor; v: Tensor };
  }
  const qkv = adaptedLinear(tape, model, overlay, `${name}.qkv`, x);
  const qWidth = config.heads * config.headDim;
  const kvWidth = config.kvHeads * config.headDim;
  return {
    q: slice(tape, qkv, 0, qWidth),
    k: slice(tape, qkv, qWidth, kvWidth),
    v: slice(tape, qkv, qWidth + kvWidth, kvWidth),
  };
}

/** x + mlp(norm(x)) */
function mlpPart(tape: Tape, model: Model, layer: number, x: Tensor, overlay: Overlay | undefined): Tensor {
  const name = `layers.${layer}`;
  const normed = norm(tape, model, overlay, `${name}.mlp_norm`, x);
  const inner = mlpInner(tape, model, name, normed, overlay);
  return adaptedLinear(tape, model, overlay, `${name}.down`, inner, x);
}

/** What goes into the MLP's last layer: (rows, intermediate). */
function mlpInner(tape: Tape, model: Model, name: string, x: Tensor, overlay: Overlay | undefined): Tensor {
  const { mlp, fusedMlp } = model.config;
  if (fusedMlp) return swigluFused(tape, adaptedLinear(tape, model, overlay, `${name}.gate_up`, x));
  const up = adaptedLinear(tape, model, overlay, `${name}.up`, x);
  if (mlp === "swiglu") return swiglu(tape, adaptedLinear(tape, model, overlay, `${name}.gate`, x), up);
  return gelu(tape, up, mlp === "gelu_tanh" ? "tanh" : "erf");
}
