import type { Backend } from "../../src/backend.js";
import { FlaggedModel } from "../../src/flag/vocab.js";
import { RowOverlay } from "../../src/model/adapter.js";
import type { ModelConfig } from "../../src/model/config.js";
import { Model } from "../../src/model/model.js";
import type { Tokenizer } from "../../src/tokenizer.js";
import { gpt2 } from "../model/tiny.js";

/** A constant that the residual stream is large by, so that the norm's epsilon does not show. */
const LOUD = 1000;

/**
 * A real model whose logits depend on the position alone, and are those of `table` (positions, vocabulary): a
 * position's embedding is a unit vector, the layers add nothing, and the head holds the table.
 */
export async function scripted(
  backend: Backend,
  table: readonly (readonly number[])[],
  tokenizer: Tokenizer | null = null,
  extra: Partial<ModelConfig> = {},
): Promise<Model> {
  const length = table.length;
  const vocabSize = table[0]?.length ?? 0;
  const config: ModelConfig = {
    ...gpt2,
    ...{
      vocabSize,
      contextLength: length,
      hiddenSize: length,
      layers: 1,
      heads: 1,
      kvHeads: 1,
      headDim: length,
    },
    ...{ intermediateSize: 4, norm: "rmsnorm", tied: false },
    ...extra,
  };
  return Model.fromValues(backend, config, tokenizer, async (name) => {
    const size = sizes(config).get(name) ?? 0;
    if (name === "norm.weight") return new Float32Array(size).fill(1);
    if (name === "positions.weight") return unitRows(length);
    if (name === "head.weight") {
      return Float32Array.from({ length: size }, (_, i) =>
        valueAt(table, i % length, Math.floor(i / length)),
      );
    }
    return new Float32Array(size);
  });
}

function sizes(config: ModelConfig): Map<string, number> {
  const { hiddenSize: d, intermediateSize: f, vocabSize, contextLength } = config;
  return new Map([
    ["embed.weight", vocabSize * d],
    ["positions.weight", contextLength * d],
    ["layers.0.attention_norm.weight", d],
    ["layers.0.qkv.weight", 3 * d * d],
    ["layers.0.qkv.bias", 3 * d],
    ["layers.0.output.weight", d * d],
    ["layers.0.output.bias", d],
    ["layers.0.mlp_norm.weight", d],
    ["layers.0.up.weight", f * d],
    ["layers.0.up.bias", f],
    ["layers.0.down.weight", d * f],
    ["layers.0.down.bias", d],
    ["norm.weight", d],
    ["head.weight", vocabSize * d],
  ]);
}

function unitRows(length: number): Float32Array {
  return Float32Array.from({ length: length * length }, (_, i) => (i % (length + 1) === 0 ? LOUD : 0));
}

/** A norm makes √length of the one value that is not 0. */
function valueAt(table: readonly (readonly number[])[], position: number, id: number): number {
  return (table[position]?.[id] ?? 0) / Math.sqrt(table.length);
}

/** The same with a flag, appended behind its vocabulary, whose logit at each position is that of `flag`. */
export function scriptedFlag(model: Model, flag: readonly number[]): FlaggedModel {
  const length = model.config.contextLength;
  const output = Float32Array.from({ length }, (_, t) => (flag[t] ?? 0) / Math.sqrt(length));
  const rows = { ids: [model.config.vocabSize], input: new Float32Array(length), output };
  return new FlaggedModel(model, "<rf>", "mean", rows, new RowOverlay(model, rows));
}

/** Rows of a table in which one token of each position has this logit and all others 0. */
export function script(vocabSize: number, tokens: readonly number[], logit = 20): number[][] {
  return tokens.map((token) => Array.from({ length: vocabSize }, (_, id) => (id === token ? logit : 0)));
}
