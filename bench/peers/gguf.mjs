// A writer of GGUF version 3 (ggml's docs/gguf.md), as much of it as a benchmark needs.

/** Bytes that the data of every tensor is a multiple of. */
const ALIGNMENT = 32;

/** Types of metadata values. */
const UINT32 = 4;
const INT32 = 5;
const FLOAT32 = 6;
const STRING = 8;
const ARRAY = 9;

export const u32 = (value) => [UINT32, value];
export const f32 = (value) => [FLOAT32, value];
export const string = (value) => [STRING, value];
export const arrayOf = {
  strings: (values) => [ARRAY, STRING, values],
  floats: (values) => [ARRAY, FLOAT32, values],
  integers: (values) => [ARRAY, INT32, values],
};

/** ggml's numbers of the stored types. */
const TENSOR_TYPES = { f32: 0, q4_0: 2, q8_0: 8 };

function fixed(bytes, write) {
  const buffer = Buffer.alloc(bytes);
  write(buffer);
  return buffer;
}

const uint32 = (value) => fixed(4, (buffer) => buffer.writeUInt32LE(value));
const uint64 = (value) => fixed(8, (buffer) => buffer.writeBigUInt64LE(BigInt(value)));

function text(value) {
  const bytes = Buffer.from(value);
  return Buffer.concat([uint64(bytes.length), bytes]);
}

function scalar(type, value) {
  if (type === STRING) return text(value);
  if (type === UINT32) return uint32(value);
  return fixed(4, (buffer) => (type === INT32 ? buffer.writeInt32LE(value) : buffer.writeFloatLE(value)));
}

function metadataValue([type, ...rest]) {
  if (type !== ARRAY) return [uint32(type), scalar(type, rest[0])];
  const [element, values] = rest;
  return [uint32(ARRAY), uint32(element), uint64(values.length), ...values.map((x) => scalar(element, x))];
}

function padded(bytes) {
  return Buffer.concat([bytes, Buffer.alloc((ALIGNMENT - (bytes.length % ALIGNMENT)) % ALIGNMENT)]);
}

/**
 * The bytes of a file.
 * @param metadata values by key, made by `u32`, `f32`, `string`, `arrayOf`
 * @param tensors `{ name, shape, type, data }`: shape rows first, type "f32", "q8_0" or "q4_0", data its bytes
 */
export function ggufFile(metadata, tensors) {
  const head = [
    Buffer.from("GGUF"),
    uint32(3),
    uint64(tensors.length),
    uint64(Object.keys(metadata).length),
    ...Object.entries(metadata).flatMap(([key, value]) => [text(key), ...metadataValue(value)]),
  ];
  const data = [];
  let offset = 0;
  for (const tensor of tensors) {
    // ggml counts the dimension that lies in a row first.
    const dims = [...tensor.shape].reverse();
    head.push(text(tensor.name), uint32(dims.length), ...dims.map(uint64));
    head.push(uint32(TENSOR_TYPES[tensor.type]), uint64(offset));
    const bytes = padded(Buffer.from(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength));
    data.push(bytes);
    offset += bytes.length;
  }
  return Buffer.concat([padded(Buffer.concat(head)), ...data]);
}
