/** The types of metadata values by their numbers, as ggml's docs/gguf.md has them. */
const TYPES = ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"];

/** A value, or a list of some type's. */
export type TestValue =
  | readonly [type: string, value: number | bigint | string | boolean]
  | readonly [type: string, values: readonly (number | bigint | string | boolean)[]];

export interface TestTensor {
  /** As the file has them: the one along a row first. */
  readonly dims: readonly number[];
  /** ggml's number. */
  readonly type: number;
  readonly data: Uint8Array;
  /** In the data, where it is not to follow the tensor before. */
  readonly offset?: number;
}

export interface TestFile {
  readonly version?: number;
  readonly alignment?: number;
  readonly metadata?: readonly (readonly [string, TestValue])[];
  readonly tensors?: readonly (readonly [string, TestTensor])[];
}

/** Where a number of the header lies. */
export interface Mark {
  readonly at: number;
  readonly bytes: 4 | 8;
}

/** A file by the specification alone, and where its lengths, counts, types, dimensions and offsets are. */
export function ggufFile({ version = 3, alignment = 32, metadata = [], tensors = [] }: TestFile): {
  bytes: Uint8Array;
  marks: Mark[];
} {
  const parts: Uint8Array[] = [];
  const marks: Mark[] = [];
  let length = 0;
  const put = (bytes: Uint8Array) => {
    parts.push(bytes);
    length += bytes.length;
  };
  const scalar = (type: string, value: number | bigint | string | boolean) => {
    if (type === "string") return string(String(value));
    const view = new DataView(new ArrayBuffer(8));
    const number = Number(value);
    const sizes: Record<string, [number, () => void]> = {
      u8: [1, () => view.setUint8(0, number)],
      i8: [1, () => view.setInt8(0, number)],
      bool: [1, () => view.setUint8(0, number)],
      u16: [2, () => view.setUint16(0, number, true)],
      i16: [2, () => view.setInt16(0, number, true)],
      u32: [4, () => view.setUint32(0, number, true)],
      i32: [4, () => view.setInt32(0, number, true)],
      f32: [4, () => view.setFloat32(0, number, true)],
      u64: [8, () => view.setBigUint64(0, BigInt(value), true)],
      i64: [8, () => view.setBigInt64(0, BigInt(value), true)],
      f64: [8, () => view.setFloat64(0, number, true)],
    };
    const [size, set] = sizes[type] ?? [0, () => {}];
    set();
    put(new Uint8Array(view.buffer, 0, size));
  };
  const marked = (type: "u32" | "u64", value: number) => {
    marks.push({ at: length, bytes: type === "u32" ? 4 : 8 });
    scalar(type, value);
  };
  const string = (text: string) => {
    const bytes = new TextEncoder().encode(text);
    marked("u64", bytes.length);
    put(bytes);
  };

  put(new TextEncoder().encode("GGUF"));
  marked("u32", version);
  marked("u64", tensors.length);
  marked("u64", metadata.length);
  for (const [key, [type, value]] of metadata) {
    string(key);
    if (!Array.isArray(value)) {
      marked("u32", TYPES.indexOf(type));
      scalar(type, value as string);
      continue;
    }
    marked("u32", TYPES.indexOf("array"));
    marked("u32", TYPES.indexOf(type));
    marked("u64", value.length);
    for (const item of value) scalar(type, item);
  }
  const up = (at: number) => Math.ceil(at / alignment) * alignment;
  let next = 0;
  const places = tensors.map(([name, { dims, type, data, offset = next }]) => {
    string(name);
    marked("u32", dims.length);
    for (const dim of dims) marked("u64", dim);
    marked("u32", type);
    marked("u64", offset);
    next = up(offset + data.length);
    return { offset, data };
  });
  const bytes = new Uint8Array(
    up(length) + Math.max(0, ...places.map(({ offset, data }) => offset + data.length)),
  );
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  for (const { offset, data } of places) bytes.set(data, up(length) + offset);
  return { bytes, marks };
}

export function f32Tensor(dims: readonly number[], value: (i: number) => number = (i) => i): TestTensor {
  const size = dims.reduce((product, dim) => product * dim, 1);
  return {
    dims,
    type: 0,
    data: new Uint8Array(Float32Array.from({ length: size }, (_, i) => value(i)).buffer),
  };
}

/** A Llama of one layer of 8, with SentencePiece's tokenizer of twelve tokens: all that a model needs. */
export const tinyGguf: TestFile = {
  metadata: [
    ["general.architecture", ["string", "llama"]],
    ["llama.context_length", ["u32", 16]],
    ["llama.embedding_length", ["u32", 8]],
    ["llama.block_count", ["u32", 1]],
    ["llama.feed_forward_length", ["u32", 12]],
    ["llama.attention.head_count", ["u32", 2]],
    ["llama.attention.head_count_kv", ["u32", 1]],
    ["llama.attention.layer_norm_rms_epsilon", ["f32", 1e-5]],
    ["tokenizer.ggml.model", ["string", "llama"]],
    [
      "tokenizer.ggml.tokens",
      [
        "string",
        ["<unk>", "<s>", "</s>", "<0x61>", "\u2581", "a", "b", "ab", "\u2581a", "<|im_end|>", "é", "<x>"],
      ],
    ],
    ["tokenizer.ggml.scores", ["f32", [0, 0, 0, 0, -9, -9, -9, -1, -2, 0, -9, 0]]],
    ["tokenizer.ggml.token_type", ["i32", [2, 3, 3, 6, 1, 1, 1, 1, 1, 3, 1, 4]]],
    ["tokenizer.ggml.bos_token_id", ["u32", 1]],
    ["tokenizer.ggml.eos_token_id", ["u32", 2]],
    ["tokenizer.ggml.unknown_token_id", ["u32", 0]],
  ],
  tensors: [
    ["token_embd.weight", f32Tensor([8, 12])],
    ["blk.0.attn_norm.weight", f32Tensor([8])],
    ["blk.0.attn_q.weight", f32Tensor([8, 8])],
    ["blk.0.attn_k.weight", f32Tensor([8, 4])],
    ["blk.0.attn_v.weight", f32Tensor([8, 4])],
    ["blk.0.attn_output.weight", f32Tensor([8, 8])],
    ["blk.0.ffn_norm.weight", f32Tensor([8])],
    ["blk.0.ffn_gate.weight", f32Tensor([8, 12])],
    ["blk.0.ffn_up.weight", f32Tensor([8, 12])],
    ["blk.0.ffn_down.weight", f32Tensor([12, 8])],
    ["output_norm.weight", f32Tensor([8])],
  ],
};

/** The same with a byte-level BPE in place of its tokenizer. */
export const tinyBpeGguf: TestFile = {
  ...tinyGguf,
  metadata: [
    ...(tinyGguf.metadata ?? []).filter(([key]) => !/ggml\.(model|tokens|scores|token_type)$/.test(key)),
    ["tokenizer.ggml.model", ["string", "gpt2"]],
    ["tokenizer.ggml.pre", ["string", "llama-bpe"]],
    [
      "tokenizer.ggml.tokens",
      ["string", ["<unk>", "<s>", "</s>", "a", "b", "\u0120", "ab", "\u0120ab", "c", "d", "<x>", "e"]],
    ],
    ["tokenizer.ggml.token_type", ["i32", [2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 4, 1]]],
    ["tokenizer.ggml.merges", ["string", ["a b", "\u0120 ab"]]],
  ],
};
