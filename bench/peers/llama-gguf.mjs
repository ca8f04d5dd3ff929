// The model of the `decode` suite as a GGUF file: the same weights as ours.
//
//   node bench/peers/llama-gguf.mjs f32|q8_0|q4_0 FILE.gguf

import { writeFile } from "node:fs/promises";
import { decodeCases, llamaConfig, llamaWeights } from "../../dist/cli/bench/kit.js";
import { arrayOf, f32, ggufFile, string, u32 } from "./gguf.mjs";
import { toQ4_0, toQ8_0 } from "./quantise.mjs";

/** Our names of the weights of a layer, and llama.cpp's. */
const LAYER_NAMES = {
  attention_norm: "attn_norm",
  q: "attn_q",
  k: "attn_k",
  v: "attn_v",
  output: "attn_output",
  mlp_norm: "ffn_norm",
  gate: "ffn_gate",
  up: "ffn_up",
  down: "ffn_down",
};

function ggufName(name) {
  const [first, layer, part] = name.split(".");
  if (first === "embed") return "token_embd.weight";
  return first === "norm" ? "output_norm.weight" : `blk.${layer}.${LAYER_NAMES[part]}.weight`;
}

/** Rows of q and k: llama.cpp rotates neighbours where we rotate halves of a head. */
export function interleaveHalves(values, heads, headDim, cols) {
  const result = new Float32Array(values.length);
  const half = headDim / 2;
  for (let row = 0; row < heads * headDim; row++) {
    const inHead = row % headDim;
    const to = row - inHead + 2 * (inHead % half) + Math.floor(inHead / half);
    result.set(values.subarray(row * cols, (row + 1) * cols), to * cols);
  }
  return result;
}

/** A tokenizer of that many pieces, as SentencePiece has it: unk, bos, eos, the bytes, then words that nobody uses. */
function dummyTokenizer(vocabSize) {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).padStart(2, "0").toUpperCase()}>`);
  const special = ["<unk>", "<s>", "</s>", ...bytes];
  const words = Array.from({ length: vocabSize - special.length }, (_, i) => `w${i}`);
  const [NORMAL, UNKNOWN, CONTROL, BYTE] = [1, 2, 3, 6];
  const types = [UNKNOWN, CONTROL, CONTROL, ...bytes.map(() => BYTE), ...words.map(() => NORMAL)];
  return {
    "tokenizer.ggml.model": string("llama"),
    "tokenizer.ggml.tokens": arrayOf.strings([...special, ...words]),
    "tokenizer.ggml.scores": arrayOf.floats(types.map((_, i) => -i)),
    "tokenizer.ggml.token_type": arrayOf.integers(types),
    "tokenizer.ggml.unknown_token_id": u32(0),
    "tokenizer.ggml.bos_token_id": u32(1),
    "tokenizer.ggml.eos_token_id": u32(2),
  };
}

/** The file's bytes, matrices stored as `type`. */
export function llamaGguf(shape, contextLength, type) {
  const config = llamaConfig(shape, contextLength);
  const { hiddenSize, heads, kvHeads, headDim } = config;
  const metadata = {
    "general.architecture": string("llama"),
    "general.name": string("oriflamme bench"),
    "llama.vocab_size": u32(config.vocabSize),
    "llama.context_length": u32(contextLength),
    "llama.embedding_length": u32(hiddenSize),
    "llama.block_count": u32(config.layers),
    "llama.feed_forward_length": u32(config.intermediateSize),
    "llama.attention.head_count": u32(heads),
    "llama.attention.head_count_kv": u32(kvHeads),
    "llama.attention.layer_norm_rms_epsilon": f32(config.normEps),
    "llama.rope.dimension_count": u32(headDim),
    "llama.rope.freq_base": f32(config.position.theta),
    ...dummyTokenizer(config.vocabSize),
  };
  const store = { f32: (values) => values, q8_0: toQ8_0, q4_0: toQ4_0 };
  const tensors = [...llamaWeights(config)].map(({ name, shape: dims, values }) => {
    const part = name.split(".")[2];
    const rotated =
      part === "q" || part === "k"
        ? interleaveHalves(values, part === "q" ? heads : kvHeads, headDim, hiddenSize)
        : values;
    // llama.cpp wants vectors in f32.
    const stored = dims.length > 1 ? type : "f32";
    return { name: ggufName(name), shape: dims, type: stored, data: store[stored](rotated) };
  });
  return ggufFile(metadata, tensors);
}

if (import.meta.main) {
  const [type, path] = process.argv.slice(2);
  await writeFile(path, llamaGguf(decodeCases[0].shape, 512, type));
}
