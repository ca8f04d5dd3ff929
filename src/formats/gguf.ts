import { FormatError, UnsupportedError } from "../errors.js";
import { formatShape, sizeOf } from "../tensor.js";
import { type GgmlType, ggmlType } from "./ggml-types.js";
import { GgufHeaderReader } from "./gguf-header-reader.js";
import type { ByteSource } from "./source.js";

/**
 * A value of the metadata. Integers beyond 2^53 are rounded, and a single f32 is the shortest decimal that rounds to
 * it: 1e-5 comes back as it was written. Lists of numbers have an array of their own width, of booleans bytes.
 */
export type GgufValue = number | boolean | string | GgufNumbers | readonly string[];

export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

/** Where a tensor lies: bytes `begin` to `end` of the file. */
export interface GgufTensor {
  readonly type: GgmlType;
  /** Rows first, unlike the file, whose first dimension lies along a row. */
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** An open file: the header is in memory, tensors are read when they are asked for. */
export interface GgufFile {
  readonly name: string;
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** Fills `into` with the bytes of a tensor from `offset` on. Throws FormatError where the tensor has not so many. */
  readRange(tensor: string, offset: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** What the data of tensors is aligned to where the file does not say, in bytes. */
const DEFAULT_ALIGNMENT = 32;
/** ggml's limit on dimensions (GGML_MAX_DIMS), and that of its reader on a name (GGML_MAX_NAME, with a zero). */
const MAX_DIMS = 4;
const MAX_NAME = 63;
/** The format's limit on keys, in bytes. */
const MAX_KEY = 65535;
/** The least that a key with its value, and that a tensor, takes up in a header: what their counts are checked by. */
const LEAST_ENTRY = 13;
const LEAST_TENSOR = 32;

/** The types of values (`enum gguf_type` in gguf.h) by their numbers. */
const TYPES = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "string",
  "array",
  "u64",
  "i64",
  "f64",
] as const;
type ValueType = (typeof TYPES)[number];

/** Bytes of a value, of a string the least that one takes up. */
const BYTES: Readonly<Record<Exclude<ValueType, "array">, number>> = {
  u8: 1,
  i8: 1,
  bool: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  u64: 8,
  i64: 8,
  f64: 8,
  string: 8,
};

/**
 * Opens a file of version 2 or 3 and checks its header (ggml's docs/gguf.md): no key and no tensor twice, known
 * types, whole blocks in a row, data aligned, inside the file and without overlap. Every length and count is checked
 * against the bytes that are left before anything is allocated for it.
 * Throws FormatError naming the file and the key or tensor; UnsupportedError for big-endian files, other versions,
 * and types of tensors that ggml had not when this was written.
 */
export async function openGguf(source: ByteSource): Promise<GgufFile> {
  const { name } = source;
  const reader = new GgufHeaderReader(source);
  if (source.size < 4 || (await reader.ascii(4, "the magic")) !== "GGUF") {
    throw new FormatError(name, "is not a GGUF file: it does not begin with 'GGUF'");
  }
  const version = await reader.u32("the version");
  if ((version & 0xffff) === 0) throw new UnsupportedError(`${name}: a big-endian GGUF file`);
  if (version !== 2 && version !== 3) {
    throw new UnsupportedError(`${name}: version ${version} of GGUF, expected 2 or 3`);
  }
  const tensorCount = await reader.count(LEAST_TENSOR, "the count of tensors");
  const keyCount = await reader.count(LEAST_ENTRY, "the count of metadata keys");
  const metadata = await readMetadata(reader, keyCount, name);
  const tensors = await readTensors(reader, tensorCount, alignmentOf(metadata, name), source);
  return {
    name,
    version,
    metadata,
    tensors,
    async readRange(tensor, offset, into) {
      const place = tensors.get(tensor);
      if (!place) throw new FormatError(name, `has no tensor '${tensor}'`);
      if (!(offset >= 0 && place.begin + offset + into.length <= place.end)) {
        const size = place.end - place.begin;
        throw new FormatError(
          name,
          `tensor '${tensor}' has ${size} bytes, asked for ${into.length} at ${offset}`,
        );
      }
      await source.readInto(place.begin + offset, into);
    },
    close: () => source.close(),
  };
}

async function readMetadata(reader: GgufHeaderReader, count: number, file: string) {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < count; i++) {
    const key = await reader.string(MAX_KEY, `metadata key ${i}`);
    if (metadata.has(key)) throw new FormatError(file, `has the metadata key '${key}' twice`);
    const what = `metadata '${key}'`;
    metadata.set(key, await readValue(reader, await readType(reader, what), what));
  }
  return metadata;
}

async function readType(reader: GgufHeaderReader, what: string): Promise<ValueType> {
  const number = await reader.u32(`the type of ${what}`);
  return TYPES[number] ?? reader.fail(`${what} has the unknown type ${number}`);
}

async function readValue(reader: GgufHeaderReader, type: ValueType, what: string): Promise<GgufValue> {
  switch (type) {
    case "string":
      return reader.string(Number.POSITIVE_INFINITY, what);
    case "array":
      return readList(reader, what);
    case "bool":
      return (await reader.bytes(1, what))[0] !== 0;
    case "f32":
      return shortestDecimal(numbers(type, await reader.bytes(4, what))[0] as number);
    default:
      return numbers(type, await reader.bytes(BYTES[type], what))[0] as number;
  }
}

async function readList(reader: GgufHeaderReader, what: string): Promise<GgufValue> {
  const type = await readType(reader, what);
  // The format allows them; ggml's own reader does not take them either.
  if (type === "array") throw new UnsupportedError(`${reader.source.name}: ${what} is a list of lists`);
  const count = await reader.count(BYTES[type], `the length of ${what}`);
  if (type !== "string") return numbers(type, await reader.bytes(count * BYTES[type], what));
  const list: string[] = [];
  for (let i = 0; i < count; i++) list.push(await reader.string(Number.POSITIVE_INFINITY, what));
  return list;
}

/** @param bytes at offset 0 of a buffer of their own */
function numbers(type: Exclude<ValueType, "string" | "array">, { buffer }: Uint8Array<ArrayBuffer>) {
  switch (type) {
    case "u8":
    case "bool":
      return new Uint8Array(buffer);
    case "i8":
      return new Int8Array(buffer);
    case "u16":
      return new Uint16Array(buffer);
    case "i16":
      return new Int16Array(buffer);
    case "u32":
      return new Uint32Array(buffer);
    case "i32":
      return new Int32Array(buffer);
    case "f32":
      return new Float32Array(buffer);
    case "f64":
      return new Float64Array(buffer);
    case "u64":
      return Float64Array.from(new BigUint64Array(buffer), Number);
    case "i64":
      return Float64Array.from(new BigInt64Array(buffer), Number);
  }
}

/** The decimal of the fewest digits that rounds to an f32. Nine always do. */
export function shortestDecimal(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const decimal = Number(value.toPrecision(digits));
    if (Math.fround(decimal) === value) return decimal;
  }
  return value;
}

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>, file: string): number {
  const value = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
  // A power of two, as ggml asks for; the shift has no sign to lose below 2^31.
  if (typeof value !== "number" || !(value > 0 && value < 2 ** 31) || (value & (value - 1)) !== 0) {
    throw new FormatError(file, `'general.alignment' must be a power of two, got ${String(value)}`);
  }
  return value;
}

/** The tensors with their places, the data beginning at the next aligned byte after the header. */
async function readTensors(
  reader: GgufHeaderReader,
  count: number,
  alignment: number,
  { name: file, size }: ByteSource,
): Promise<Map<string, GgufTensor>> {
  const infos = new Map<string, Omit<GgufTensor, "begin" | "end"> & { offset: number }>();
  for (let i = 0; i < count; i++) {
    const name = await reader.string(MAX_NAME, `the name of tensor ${i}`);
    if (infos.has(name)) throw new FormatError(file, `has the tensor '${name}' twice`);
    infos.set(name, await readTensorInfo(reader, `tensor '${name}'`, file));
  }

  const dataStart = alignUp(reader.position, alignment);
  const tensors = new Map<string, GgufTensor>();
  for (const [name, { type, shape, offset }] of infos) {
    const begin = dataStart + offset;
    const end = begin + (sizeOf(shape) / type.block) * type.bytes;
    if (offset % alignment !== 0) {
      throw new FormatError(
        file,
        `tensor '${name}': its offset of ${offset} is no multiple of the alignment, ${alignment}`,
      );
    }
    if (!(end <= size)) {
      throw new FormatError(
        file,
        `tensor '${name}': data ends at byte ${end}, but the file has ${size} bytes`,
      );
    }
    tensors.set(name, { type, shape, begin, end });
  }
  expectApart(tensors, file);
  return tensors;
}

async function readTensorInfo(reader: GgufHeaderReader, what: string, file: string) {
  const dimCount = await reader.u32(`the dimensions of ${what}`);
  if (dimCount < 1 || dimCount > MAX_DIMS) {
    throw new FormatError(file, `${what} has ${dimCount} dimensions, expected 1 to ${MAX_DIMS}`);
  }
  const dims: number[] = [];
  for (let i = 0; i < dimCount; i++) dims.push(await reader.u64(`the dimensions of ${what}`));
  const shape = dims.reverse();
  // Sixteen bytes are more than any value takes, so that sums of sizes and places are exact too.
  if (shape.some((dim) => dim < 1) || !Number.isSafeInteger(sizeOf(shape) * 16)) {
    throw new FormatError(file, `${what} has the shape ${formatShape(shape)}`);
  }
  const number = await reader.u32(`the type of ${what}`);
  const type = ggmlType(number);
  if (!type) throw new UnsupportedError(`${file}: ${what} is of the unknown type ${number}`);
  if ((shape.at(-1) as number) % type.block !== 0) {
    throw new FormatError(
      file,
      `${what} of shape ${formatShape(shape)} has rows that are no blocks of ${type.name}`,
    );
  }
  return { type, shape, offset: await reader.u64(`the offset of ${what}`) };
}

/** No byte serves two tensors. */
function expectApart(tensors: ReadonlyMap<string, GgufTensor>, file: string): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.begin - b.begin);
  let last = 0;
  for (const [name, { begin, end }] of inOrder) {
    if (begin < last) throw new FormatError(file, `tensor '${name}' overlaps the one before it`);
    last = end;
  }
}

/** The next multiple. Not by bits: positions may be beyond 2^31. */
function alignUp(position: number, alignment: number): number {
  return Math.ceil(position / alignment) * alignment;
}
