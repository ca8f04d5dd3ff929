import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { openFiles } from "../../src/formats/files.js";
import { openHuggingFace } from "../../src/formats/hf.js";
import { huggingFaceConfig, parseHuggingFaceConfig } from "../../src/formats/hf-config.js";
import { toHuggingFaceName } from "../../src/formats/hf-names.js";
import { huggingFaceFiles, writeHuggingFace } from "../../src/formats/hf-write.js";
import { openSafetensors } from "../../src/formats/safetensors.js";
import { type TensorData, writeSafetensors } from "../../src/formats/safetensors-write.js";
import { bytesSource } from "../../src/formats/source.js";
import { type ModelConfig, type RopeScaling, weightShapes } from "../../src/model/config.js";
import { readValues } from "../../src/model/stored-weight.js";
import {
  concatenate,
  readerOf,
  rejection,
  someWeights,
  temporaryFolder,
  tinyGpt2,
  tinyLlama,
  tinyMistral,
  tinyPhi3,
  tinyQwen2,
  tinyQwen3,
} from "./helpers.js";

const llamaJson = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 176,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  vocab_size: 320,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-6,
  bos_token_id: 1,
  eos_token_id: 2,
};
const gpt2Json = {
  model_type: "gpt2",
  n_embd: 64,
  n_layer: 2,
  n_head: 4,
  n_positions: 256,
  vocab_size: 320,
  layer_norm_epsilon: 1e-5,
};
const phi3Json = { ...llamaJson, model_type: "phi3" };
const parse = (fields: object, generation?: object) =>
  parseHuggingFaceConfig(
    JSON.stringify(fields),
    "config.json",
    generation && { text: JSON.stringify(generation), file: "generation_config.json" },
  );

describe("config.json", () => {
  test("defaults of llama", () => {
    const config = parse(llamaJson);
    expect(config).toMatchObject({
      headDim: 16,
      kvHeads: 4,
      tied: false,
      window: null,
      bosId: 1,
      eosIds: [2],
    });
    expect(config.position).toEqual({ kind: "rope", theta: 10000, scaling: { kind: "none" } });
    expect(config.bias).toEqual({ qkv: false, output: false, mlp: false });
    expect(parse({ ...llamaJson, head_dim: null, num_key_value_heads: null })).toEqual(config);
  });

  test("both dialects of rotary positions", () => {
    const llama3 = {
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    };
    const expected = {
      kind: "rope",
      theta: 500000,
      scaling: { kind: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContextLength: 64 },
    };
    for (const fields of [
      { rope_parameters: { rope_theta: 500000, rope_type: "llama3", ...llama3 } },
      { rope_theta: 500000, rope_scaling: { rope_type: "llama3", ...llama3 } },
      { rope_theta: 500000, rope_scaling: { type: "llama3", ...llama3 } },
    ]) {
      expect(parse({ ...llamaJson, ...fields }).position).toEqual(expected);
    }
    expect(parse({ ...llamaJson, rope_scaling: { type: "linear", factor: 2 } }).position).toEqual({
      kind: "rope",
      theta: 10000,
      scaling: { kind: "linear", factor: 2 },
    });
    expect(parse({ ...llamaJson, rope_scaling: null, rope_theta: 7 }).position).toMatchObject({ theta: 7 });
  });

  test("attention_bias and mlp_bias are data", () => {
    expect(parse({ ...llamaJson, attention_bias: true }).bias).toEqual({
      qkv: true,
      output: true,
      mlp: false,
    });
    expect(parse({ ...llamaJson, mlp_bias: true }).bias).toEqual({ qkv: false, output: false, mlp: true });
  });

  test("mistral's window: a number, null, or transformers' default", () => {
    const mistral = { ...llamaJson, model_type: "mistral" };
    expect(parse({ ...mistral, sliding_window: 9 }).window).toBe(9);
    expect(parse({ ...mistral, sliding_window: null }).window).toBeNull();
    expect(parse(mistral).window).toBe(4096);
  });

  test("phi3: fused matrices, window, and LongRoPE whose length lies at the top", () => {
    expect(parse(phi3Json)).toMatchObject({
      architecture: "phi3",
      fusedQkv: true,
      fusedMlp: true,
      window: null,
      tied: false,
      position: { scaling: { kind: "none" } },
    });
    expect(parse({ ...phi3Json, sliding_window: 2047 }).window).toBe(2047);
    const factors = { short_factor: Array(8).fill(1), long_factor: Array(8).fill(4) };
    const scaling = {
      kind: "longrope",
      shortFactors: factors.short_factor,
      longFactors: factors.long_factor,
      originalContextLength: 64,
      attentionFactor: Math.sqrt(1 + Math.log(4) / Math.log(64)),
    };
    const top = { original_max_position_embeddings: 64 };
    for (const fields of [
      { ...top, rope_scaling: { type: "longrope", ...factors } },
      // What the first files call it, and what transformers takes for the same in a Phi-3.
      { ...top, rope_scaling: { type: "su", ...factors } },
      { ...top, rope_scaling: { type: "yarn", ...factors } },
      { rope_parameters: { rope_type: "longrope", ...factors, ...top, factor: 4 } },
      // transformers prefers the one at the top.
      {
        ...top,
        rope_parameters: { rope_type: "longrope", ...factors, original_max_position_embeddings: 32 },
      },
    ]) {
      expect(parse({ ...phi3Json, ...fields }).position).toMatchObject({ theta: 10000, scaling });
    }
    const longrope = { rope_type: "longrope", ...factors };
    expect(
      parse({ ...phi3Json, ...top, rope_scaling: { ...longrope, attention_factor: 1.5 } }),
    ).toMatchObject({
      position: { scaling: { attentionFactor: 1.5 } },
    });
    // No longer than it was: nothing to make up for.
    expect(parse({ ...phi3Json, rope_scaling: longrope })).toMatchObject({
      position: { scaling: { attentionFactor: 1, originalContextLength: 256 } },
    });
    const short = { rope_scaling: { ...longrope, long_factor: [1, 2] } };
    expect(() => parse({ ...phi3Json, ...short })).toThrow(
      "config.json: 'rope_scaling.long_factor' must be a list of 8 numbers above 0, got 2: [1,2]",
    );
    expect(() => parse({ ...phi3Json, rope_scaling: { type: "longrope" } })).toThrow(
      /short_factor' is missing/,
    );
  });

  test("phi3 rotates a part of a head", () => {
    const config = { ...phi3Json, partial_rotary_factor: 0.75 };
    expect(parse(config).position).toMatchObject({ rotaryDim: 12 });
    expect(parse({ ...phi3Json, partial_rotary_factor: 1 }).position).not.toHaveProperty("rotaryDim");
    const nested = { rope_parameters: { rope_type: "default", partial_rotary_factor: 0.5 } };
    expect(parse({ ...phi3Json, ...nested }).position).toMatchObject({ rotaryDim: 8 });
    for (const factor of [0.01, 0.6 / 16, 1.5, 0.7]) {
      expect(() => parse({ ...phi3Json, partial_rotary_factor: factor })).toThrow(
        `'partial_rotary_factor' of ${factor} does not rotate an even part of a head of 16`,
      );
    }
  });

  test("qwen2: bias of q, k and v, and a window only where it is used", () => {
    const qwen2 = { ...llamaJson, model_type: "qwen2", num_hidden_layers: 4 };
    expect(parse(qwen2)).toMatchObject({ bias: { qkv: true, output: false, mlp: false }, window: null });
    const off = { sliding_window: 32768, max_window_layers: 2, use_sliding_window: false };
    expect(parse({ ...qwen2, ...off }).window).toBeNull();
    const on = { ...qwen2, ...off, use_sliding_window: true, sliding_window: 7 };
    const windows = (fields: object) => {
      const { window, fullAttentionLayers } = parse(fields);
      return [window, fullAttentionLayers];
    };
    expect(windows(on)).toEqual([7, [0, 1]]);
    expect(windows({ ...on, max_window_layers: 0 })).toEqual([7, undefined]);
    expect(windows({ ...on, max_window_layers: 4 })).toEqual([null, undefined]);
    expect(windows({ ...on, max_window_layers: null, sliding_window: null })).toEqual([null, undefined]);
    const [full, sliding] = ["full_attention", "sliding_attention"];
    expect(windows({ ...on, layer_types: [sliding, full, full, sliding] })).toEqual([7, [1, 2]]);
    expect(windows({ ...on, layer_types: [full, full, full, full] })).toEqual([null, undefined]);
    expect(() => parse({ ...on, layer_types: [full] })).toThrow(/'layer_types' must be a list of 4 names/);
    expect(() => parse({ ...on, layer_types: [full, full, full, "chunked_attention"] })).toThrow(
      /'layer_types' of "chunked_attention"/,
    );
    expect(() => parse({ ...qwen2, layer_types: [full, full, full, sliding] })).toThrow(
      /'layer_types' names sliding attention, but there is no 'sliding_window' in use/,
    );
  });

  test("qwen3: normed heads of 128 unless the file says otherwise", () => {
    const qwen3 = { ...llamaJson, model_type: "qwen3" };
    expect(parse(qwen3)).toMatchObject({ headDim: 128, qkNorm: true, bias: { qkv: false, output: false } });
    expect(parse({ ...qwen3, attention_bias: true }).bias).toEqual({ qkv: true, output: true, mlp: false });
    const scaled = {
      rope_scaling: { type: "longrope", short_factor: Array(9).fill(1), long_factor: Array(9).fill(2) },
    };
    expect(parse({ ...qwen3, head_dim: 18, ...scaled })).toMatchObject({ headDim: 18 });
  });

  test("scalings by which a context is longer than 'max_position_embeddings'", () => {
    const dynamic = parse({ ...llamaJson, rope_scaling: { type: "dynamic", factor: 2.5 } });
    expect(dynamic.contextLength).toBe(640);
    expect(dynamic.position).toMatchObject({
      scaling: { kind: "dynamic", factor: 2.5, originalContextLength: 256 },
    });
    const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 256 };
    for (const max_position_embeddings of [256, 1024]) {
      const config = parse({ ...llamaJson, max_position_embeddings, rope_scaling: yarn });
      expect(config.contextLength).toBe(1024);
      expect(config.position).toMatchObject({
        scaling: {
          ...{ kind: "yarn", factor: 4, originalContextLength: 256 },
          ...{ betaFast: 32, betaSlow: 1, truncate: true, attentionFactor: 0.1 * Math.log(4) + 1 },
        },
      });
    }
    const both = { ...llamaJson, rope_scaling: { ...yarn, mscale: 0.8, mscale_all_dim: 0.5 } };
    const slope = (mscale: number) => 0.1 * mscale * Math.log(4) + 1;
    expect(parse(both)).toMatchObject({
      position: { scaling: { attentionFactor: slope(0.8) / slope(0.5) } },
    });
  });

  test("of two dialects in one file transformers takes the older", () => {
    const rope = {
      rope_scaling: { rope_type: "linear", factor: 2 },
      rope_parameters: { rope_type: "linear", factor: 3, rope_theta: 5 },
    };
    expect(parse({ ...llamaJson, ...rope, rope_theta: 7 }).position).toEqual({
      kind: "rope",
      theta: 7,
      scaling: { kind: "linear", factor: 2 },
    });
  });

  test("gpt2", () => {
    const config = parse({ ...gpt2Json, n_inner: null });
    expect(config).toMatchObject({ intermediateSize: 256, mlp: "gelu_tanh", tied: true, fusedQkv: true });
    expect(config).toMatchObject({
      kvHeads: 4,
      headDim: 16,
      norm: "layernorm",
      position: { kind: "learned" },
    });
    const { n_positions, ...others } = gpt2Json;
    expect(parse({ ...others, n_ctx: n_positions })).toEqual(parse(gpt2Json));
    expect(parse({ ...gpt2Json, n_inner: 100, activation_function: "gelu" })).toMatchObject({
      intermediateSize: 100,
      mlp: "gelu_erf",
    });
  });

  test("special ids: a list, generation_config first, and none outside the vocabulary", () => {
    expect(parse({ ...llamaJson, eos_token_id: [2, 7] }).eosIds).toEqual([2, 7]);
    expect(parse(llamaJson, { eos_token_id: [3, 4] }).eosIds).toEqual([3, 4]);
    expect(parse(llamaJson, { eos_token_id: null }).eosIds).toEqual([2]);
    expect(parse({ ...llamaJson, bos_token_id: null, eos_token_id: null })).toMatchObject({
      bosId: null,
      eosIds: [],
    });
    expect(parse({ ...gpt2Json, bos_token_id: 50256, eos_token_id: 50256 })).toMatchObject({
      bosId: null,
      eosIds: [],
    });
  });

  test.each(
    Object.entries({ llama: llamaJson, gpt2: gpt2Json }).flatMap(([type, fields]) =>
      Object.keys(fields)
        .filter((name) => !["bos_token_id", "eos_token_id"].includes(name))
        .map((name) => [type, name, fields] as const),
    ),
  )("%s: '%s' missing or of the wrong type is named", (_, name, fields) => {
    for (const value of [undefined, "x", -1, 1.5, [], {}]) {
      if (name === "model_type" && value === "x") continue;
      if (/eps/.test(name) && value === 1.5) continue;
      const broken = () => parse({ ...fields, [name]: value });
      expect(broken).toThrow(FormatError);
      expect(broken).toThrow(`config.json: '${name}'`);
    }
  });

  test("fields that do not fit together", () => {
    expect(() => parse({ ...llamaJson, num_key_value_heads: 3 })).toThrow(/'num_key_value_heads' of 3/);
    expect(() => parse({ ...llamaJson, num_attention_heads: 5 })).toThrow(/'num_attention_heads' of 5/);
    expect(() => parse({ ...llamaJson, head_dim: 15 })).toThrow(/'head_dim' of 15 is odd/);
    expect(() => parse({ ...gpt2Json, n_head: 5 })).toThrow(/'n_head' of 5/);
    expect(() => parse({ ...llamaJson, num_hidden_layers: 1e9 })).toThrow(/'num_hidden_layers'/);
    expect(() => parse({ ...llamaJson, rope_scaling: { rope_type: "llama3", factor: 8 } })).toThrow(
      /'rope_scaling\.low_freq_factor' is missing/,
    );
    expect(() => parse({ ...llamaJson, eos_token_id: ["a"] })).toThrow(/'eos_token_id'/);
    expect(() => parseHuggingFaceConfig("{", "config.json")).toThrow(/config\.json: .*not valid JSON/);
    expect(() => parseHuggingFaceConfig("[]", "config.json")).toThrow(/not a JSON object/);
  });

  test.each([
    [{ ...llamaJson, model_type: "mamba" }, /'model_type' of 'mamba'/],
    [{ ...llamaJson, hidden_act: "relu" }, /'hidden_act' of "relu"/],
    [{ ...llamaJson, rope_scaling: { type: "mrope", factor: 2 } }, /'rope_scaling\.type' of 'mrope'/],
    [
      { ...llamaJson, rope_parameters: { rope_type: "proportional" } },
      /'rope_parameters\.rope_type' of 'proportional'/,
    ],
    [{ ...llamaJson, partial_rotary_factor: 0.5 }, /'partial_rotary_factor' of 0\.5/],
    [
      { ...llamaJson, rope_scaling: { type: "linear", factor: 2, mrope_section: [2] } },
      /'rope_scaling\.mrope_section'/,
    ],
    [{ ...phi3Json, rope_scaling: { type: "longrope", short_mscale: 1.2 } }, /'rope_scaling\.short_mscale'/],
    [{ ...phi3Json, attention_bias: true }, /'attention_bias' of true/],
    [{ ...phi3Json, hidden_act: "gelu" }, /'hidden_act' of "gelu"/],
    [{ ...llamaJson, logit_scale: 0.0625 }, /'logit_scale' of 0\.0625/],
    [{ ...llamaJson, logits_scaling: 8 }, /'logits_scaling' of 8/],
    [{ ...llamaJson, attn_logit_softcapping: 50 }, /'attn_logit_softcapping' of 50/],
    [{ ...llamaJson, final_logit_softcapping: 30 }, /'final_logit_softcapping' of 30/],
    [{ ...llamaJson, num_experts: 8 }, /'num_experts' of 8/],
    [{ ...llamaJson, num_local_experts: 8 }, /'num_local_experts' of 8/],
    [{ ...llamaJson, rope_interleaved: true }, /'rope_interleaved' of true/],
    [
      { ...llamaJson, rope_parameters: { full_attention: { rope_type: "default" } } },
      /'rope_parameters\.full_attention'/,
    ],
    [{ ...llamaJson, qk_layernorm: true }, /'qk_layernorm' of true/],
    [{ ...llamaJson, no_rope_layers: [0, 1] }, /'no_rope_layers' of \[0,1\]/],
    [{ ...llamaJson, quantization_config: { bits: 4 } }, /'quantization_config'/],
    [{ ...gpt2Json, activation_function: "relu" }, /'activation_function' of "relu"/],
    [{ ...gpt2Json, scale_attn_by_inverse_layer_idx: true }, /'scale_attn_by_inverse_layer_idx'/],
    [{ ...gpt2Json, reorder_and_upcast_attn: true }, /'reorder_and_upcast_attn'/],
    [{ ...gpt2Json, add_cross_attention: true }, /'add_cross_attention'/],
    [{ ...gpt2Json, scale_attn_weights: false }, /'scale_attn_weights'/],
  ])("what is not implemented is named (%#)", (fields, message) => {
    expect(() => parse(fields)).toThrow(UnsupportedError);
    expect(() => parse(fields)).toThrow(message);
  });

  test("fields that published files have besides", () => {
    // Llama 3.2, SmolLM2, Phi-3.5, Phi-4 mini, Qwen2.5, GPT-2.
    const llama = {
      pretraining_tp: 1,
      attention_dropout: 0,
      initializer_range: 0.02,
      torch_dtype: "bfloat16",
    };
    const smol = {
      is_llama_config: true,
      rope_interleaved: false,
      "transformers.js_config": { dtype: "q4" },
    };
    expect(parse({ ...llamaJson, ...llama, ...smol })).toEqual(parse(llamaJson));
    const phi = { auto_map: { AutoConfig: "x" }, attention_bias: false, embd_pdrop: 0, resid_pdrop: 0 };
    const phi4 = { interpolate_factor: 1, full_attn_mod: 1, lm_head_bias: false, mlp_bias: false };
    expect(parse({ ...phi3Json, ...phi, ...phi4 })).toEqual(parse(phi3Json));
    const gpt2 = { n_ctx: 256, task_specific_params: {}, summary_type: "cls_index", attn_pdrop: 0.1 };
    expect(parse({ ...gpt2Json, ...gpt2 })).toEqual(parse(gpt2Json));
  });

  test("fields of relatives that change nothing are passed over", () => {
    const neutral = {
      logit_scale: 1,
      attn_logit_softcapping: null,
      num_experts: 0,
      clip_qkv: null,
      alibi: false,
    };
    expect(parse({ ...llamaJson, ...neutral })).toEqual(parse(llamaJson));
  });

  const rope = (scaling: RopeScaling) => ({ kind: "rope", theta: 5, scaling }) as const;
  const yarn = { kind: "yarn", factor: 2, originalContextLength: 8, betaFast: 16, betaSlow: 2 } as const;
  test.each([
    tinyLlama,
    tinyMistral,
    tinyGpt2,
    tinyPhi3,
    tinyQwen2,
    tinyQwen3,
    { ...tinyQwen3, bias: { qkv: true, output: true, mlp: false } },
    { ...tinyQwen2, window: 3 },
    { ...tinyQwen2, window: 3, fullAttentionLayers: [0] },
    { ...tinyQwen3, window: 3, fullAttentionLayers: [1] },
    {
      ...tinyPhi3,
      window: 3,
      position: { kind: "rope" as const, theta: 5, scaling: { kind: "none" as const } },
    },
    {
      ...tinyLlama,
      position: rope({
        ...{ kind: "longrope", shortFactors: [1, 2], longFactors: [3, 4] },
        ...{ originalContextLength: 4, attentionFactor: 1.5 },
      }),
    },
    { ...tinyLlama, position: rope({ kind: "dynamic", factor: 2, originalContextLength: 8 }) },
    { ...tinyLlama, position: rope({ ...yarn, truncate: false, attentionFactor: 1.1 }) },
    {
      ...tinyLlama,
      position: rope({
        ...{ kind: "llama3", factor: 4, lowFreqFactor: 1, highFreqFactor: 4, originalContextLength: 8 },
      }),
    },
    { ...tinyGpt2, mlp: "gelu_erf" as const, eosIds: [2, 3] },
    { ...tinyLlama, bias: { qkv: true, output: true, mlp: true }, bosId: null, eosIds: [] },
    {
      ...tinyLlama,
      position: { kind: "rope" as const, theta: 5, scaling: { kind: "linear" as const, factor: 2 } },
    },
  ])("what is written reads the same, in each dialect alone (%#)", (config: ModelConfig) => {
    const fields = huggingFaceConfig(config);
    expect(parse(fields)).toEqual(config);
    const { rope_parameters: _, dtype: __, ...old } = fields;
    expect(parse(old)).toEqual(config);
    const { rope_theta: ___, rope_scaling: ____, torch_dtype: _____, ...current } = fields;
    expect(parse(current)).toEqual(config);
  });

  test("a scaling for Phi-3 in transformers 4 has three keys, and no vocabulary too small for its padding", () => {
    const { rope_scaling, original_max_position_embeddings, pad_token_id } = huggingFaceConfig(tinyPhi3);
    expect(rope_scaling).toEqual({ type: "longrope", short_factor: [1, 1.5], long_factor: [2, 3] });
    expect([original_max_position_embeddings, pad_token_id]).toEqual([8, null]);
  });

  test("what the architecture has no fields for is not written", () => {
    expect(() => huggingFaceConfig({ ...tinyLlama, window: 3 })).toThrow(
      "a model of type 'llama' with a window",
    );
    expect(() => huggingFaceConfig({ ...tinyMistral, fullAttentionLayers: [0] })).toThrow(
      "a model of type 'mistral' with a window in some layers only",
    );
    expect(() => huggingFaceConfig({ ...tinyLlama, position: { kind: "learned" } })).toThrow(
      "a model of type 'llama' with learned positions",
    );
  });
});

test("names: prefix, head, norms and biases are not transposed", () => {
  expect(toHuggingFaceName(tinyLlama, "layers.1.q.weight")).toEqual({
    name: "model.layers.1.self_attn.q_proj.weight",
    transpose: false,
  });
  expect(toHuggingFaceName(tinyLlama, "head.weight").name).toBe("lm_head.weight");
  expect(toHuggingFaceName(tinyGpt2, "layers.0.qkv")).toEqual({
    name: "transformer.h.0.attn.c_attn",
    transpose: true,
  });
  expect(toHuggingFaceName(tinyGpt2, "layers.0.qkv.weight").transpose).toBe(true);
  expect(toHuggingFaceName(tinyPhi3, "layers.1.qkv").name).toBe("model.layers.1.self_attn.qkv_proj");
  expect(toHuggingFaceName(tinyPhi3, "layers.1.gate_up").name).toBe("model.layers.1.mlp.gate_up_proj");
  expect(toHuggingFaceName(tinyQwen3, "layers.0.k_norm.weight").name).toBe(
    "model.layers.0.self_attn.k_norm.weight",
  );
  for (const name of ["layers.0.qkv.bias", "layers.0.mlp_norm.weight", "embed.weight", "positions.weight"]) {
    expect(toHuggingFaceName(tinyGpt2, name).transpose).toBe(false);
  }
  for (const name of ["q.weight", "layers.0.embed.weight", "layers.0.qkv.weight", "x", "", "constructor"]) {
    expect(() => toHuggingFaceName(tinyLlama, name)).toThrow(RangeError);
  }
});

/** A folder in memory, with each tensor changed or dropped by `edit`. */
async function folderOf(
  config: ModelConfig,
  edit: (name: string, tensor: TensorData) => [string, TensorData] | null = (name, tensor) => [name, tensor],
  extra: Record<string, TensorData> = {},
): Promise<Record<string, Uint8Array>> {
  const written = huggingFaceFiles(config, readerOf(someWeights(config)));
  const whole = await concatenate(written.get("model.safetensors") as AsyncIterable<Uint8Array>);
  const file = await openSafetensors(bytesSource("whole", whole));
  const tensors = new Map<string, TensorData>(Object.entries(extra));
  for (const [name, { shape }] of file.tensors) {
    const edited = edit(name, { dtype: "F32", shape, data: await file.read(name) });
    if (edited) tensors.set(...edited);
  }
  return {
    "config.json": new TextEncoder().encode(written.get("config.json") as string),
    "model.safetensors": await concatenate(writeSafetensors(tensors)),
  };
}

async function expectSame(config: ModelConfig, files: Parameters<typeof openFiles>[0]): Promise<void> {
  const model = await openHuggingFace(await openFiles(files));
  expect(model.config).toEqual(config);
  const weights = someWeights(config);
  for (const name of weightShapes(config).keys())
    expect(await readValues(model.weight(name))).toEqual(weights.get(name));
  await model.close();
}

const scalar = (value: number): TensorData => ({ dtype: "F32", shape: [1], data: Float32Array.of(value) });

describe("folders", () => {
  test.each([
    [tinyLlama, "f32"],
    [tinyMistral, "f16"],
    [tinyGpt2, "bf16"],
    [{ ...tinyGpt2, tied: false }, "f32"],
    [tinyPhi3, "bf16"],
    [tinyQwen2, "f16"],
    [tinyQwen3, "f32"],
  ] as const)("what is written to disk is read back (%#)", async (config, dtype) => {
    const folder = join(await temporaryFolder(), "deep", "model");
    await writeHuggingFace(folder, config, readerOf(someWeights(config)), { dtype, tokenizerJson: { a: 1 } });
    expect((await readdir(folder)).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
    ]);
    await expectSame(config, folder);
  });

  test("names without the prefix", async () => {
    const strip = (name: string, tensor: TensorData): [string, TensorData] => [
      name.replace(/^(model|transformer)\./, ""),
      tensor,
    ];
    await expectSame(tinyLlama, await folderOf(tinyLlama, strip));
    await expectSame(tinyGpt2, await folderOf(tinyGpt2, strip));
    await expectSame(tinyMistral, await folderOf(tinyMistral, strip));
  });

  test("harmless extras are passed over", async () => {
    const keep = (name: string, tensor: TensorData): [string, TensorData] => [name, tensor];
    await expectSame(
      tinyGpt2,
      await folderOf(tinyGpt2, keep, {
        "transformer.h.0.attn.bias": scalar(1),
        "transformer.h.0.attn.masked_bias": scalar(1),
        "lm_head.weight": scalar(1),
      }),
    );
    await expectSame(
      tinyLlama,
      await folderOf(tinyLlama, keep, {
        "model.layers.0.self_attn.rotary_emb.inv_freq": scalar(1),
        other: scalar(1),
      }),
    );
  });

  test("shards", async () => {
    const folder = await temporaryFolder();
    const map: Record<string, string> = {};
    const first = await folderOf(tinyLlama, (name, tensor) => {
      map[name] = name.includes("layers.1") ? "b.safetensors" : "a.safetensors";
      return map[name] === "a.safetensors" ? [name, tensor] : null;
    });
    const second = await folderOf(tinyLlama, (name, tensor) =>
      map[name] === "b.safetensors" ? [name, tensor] : null,
    );
    const index = (weightMap: unknown) =>
      writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
    await writeFile(join(folder, "config.json"), first["config.json"] ?? "");
    await writeFile(join(folder, "a.safetensors"), first["model.safetensors"] ?? "");
    await writeFile(join(folder, "b.safetensors"), second["model.safetensors"] ?? "");
    await index(map);
    await expectSame(tinyLlama, folder);

    const fails = async () => (await rejection(openFiles(folder).then(openHuggingFace))).message;
    await index({ ...map, "model.norm.weight": "b.safetensors" });
    expect(await fails()).toMatch(
      /b\.safetensors: has no tensor 'model\.norm\.weight', which .*index\.json says/,
    );
    await index({ ...map, "model.norm.weight": "c.safetensors" });
    expect(await fails()).toMatch(/c\.safetensors: no such file/);
    await mkdir(join(folder, "sub"));
    await index({ ...map, "model.norm.weight": "../a.safetensors" });
    expect(await fails()).toMatch(/a\.safetensors: no such file/);
    const { "model.norm.weight": _, ...rest } = map;
    await index(rest);
    expect(await fails()).toMatch(/index\.json: has no tensor 'model\.norm\.weight'/);
    await index(undefined);
    expect(await fails()).toMatch(/'weight_map' must be an object/);
    await index({ x: 1 });
    expect(await fails()).toMatch(/'weight_map\.x' must be a file name/);
  });
});

describe("what is refused", () => {
  const fails = async (files: Record<string, Uint8Array>) => {
    const error = await rejection(openFiles(files).then(openHuggingFace));
    expect(error).toBeInstanceOf(FormatError);
    return error.message;
  };

  test("a missing tensor", async () => {
    const files = await folderOf(tinyLlama, (name, tensor) =>
      name.includes("layers.1.mlp.up") ? null : [name, tensor],
    );
    expect(await fails(files)).toBe("model.safetensors: has no tensor 'model.layers.1.mlp.up_proj.weight'");
  });

  test("a wrong vocabulary size, in words of the file's own layout", async () => {
    const edit =
      (suffix: string, shape: number[]) =>
      (name: string, tensor: TensorData): [string, TensorData] => {
        const size = shape.reduce((a, b) => a * b);
        return [name, name.endsWith(suffix) ? { dtype: "F32", shape, data: new Float32Array(size) } : tensor];
      };
    expect(await fails(await folderOf(tinyLlama, edit("embed_tokens.weight", [12, 8])))).toBe(
      "model.safetensors: tensor 'model.embed_tokens.weight' has shape (12, 8), expected (11, 8)",
    );
    expect(await fails(await folderOf(tinyGpt2, edit("h.0.attn.c_attn.weight", [24, 8])))).toBe(
      "model.safetensors: tensor 'transformer.h.0.attn.c_attn.weight' has shape (24, 8), expected (8, 24)",
    );
  });

  test("a tensor in a block that the configuration has no place for", async () => {
    const files = await folderOf(tinyLlama, undefined, { "model.layers.0.self_attn.q_proj.bias": scalar(1) });
    expect(await fails(files)).toMatch(/'model\.layers\.0\.self_attn\.q_proj\.bias' has no place/);
    const shallow = new TextEncoder().encode(JSON.stringify(huggingFaceConfig({ ...tinyLlama, layers: 1 })));
    expect(await fails({ ...(await folderOf(tinyLlama)), "config.json": shallow })).toMatch(
      /layers\.1\..* has no place/,
    );
  });

  test("integers where weights should be", async () => {
    const files = await folderOf(tinyLlama, (name, tensor) => [
      name,
      name === "model.norm.weight" ? { dtype: "I64", shape: [8], data: [1, 2, 3, 4, 5, 6, 7, 8] } : tensor,
    ]);
    expect(await fails(files)).toMatch(/'model\.norm\.weight' holds I64/);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])("a weight of %d, when it is read", async (value) => {
    const files = await folderOf(tinyLlama, (name, tensor) => [
      name,
      name === "model.norm.weight"
        ? { dtype: "F32", shape: [8], data: new Float32Array(8).fill(value, 5, 6) }
        : tensor,
    ]);
    const model = await openHuggingFace(await openFiles(files));
    const error = await rejection(readValues(model.weight("norm.weight")));
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toBe(`model.safetensors: tensor 'model.norm.weight' holds ${value} at index 5`);
  });

  test("no weights, and pickles", async () => {
    const { "config.json": config = new Uint8Array(0) } = await folderOf(tinyLlama);
    expect(await fails({ "config.json": config, other: config })).toMatch(/neither model\.safetensors nor/);
    expect(await fails({ "config.json": config, "pytorch_model.bin": config })).toMatch(
      /'pytorch_model\.bin' is a pickle/,
    );
  });
});
