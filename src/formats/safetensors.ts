import { FormatError, UnsupportedError } from "../errors.js";
import { bf16ToF32, f16ToF32 } from "../half.js";
import { formatShape } from "../tensor.js";
import { decodeUtf8, duplicateKey, isObject, parseObject, show } from "./json.js";
import type { ByteSource } from "./source.js";

/** Bits per element of every type that the safetensors format knows. */
export function bitsOf(dtype: string): number | undefined {
  switch (dtype) {
    case "F4":
      return 4;
    case "F6_E2M3":
    case "F6_E3M2":
      return 6;
    case "BOOL":
    case "U8":
    case "I8":
    case "F8_E5M2":
    case "F8_E4M3":
    case "F8_E8M0":
    case "F8_E4M3FNUZ":
    case "F8_E5M2FNUZ":
      return 8;
    case "I16":
    case "U16":
    case "F16":
    case "BF16":
      return 16;
    case "I32":
    case "U32":
    case "F32":
      return 32;
    case "I64":
    case "U64":
    case "F64":
    case "C64":
      return 64;
    default:
      return undefined;
  }
}

/** Where a tensor lies: bytes `begin` to `end` after the header. */
export interface TensorEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** An open file: the header is in memory, tensors are read when they are asked for. */
export interface SafetensorsFile extends SafetensorsHeader {
  readonly name: string;
  /**
   * The values of a tensor of F32, F16, BF16 or F64 as f32, row-major.
   * Throws FormatError where there is no such tensor, UnsupportedError where it has another type.
   */
  read(tensor: string): Promise<Float32Array<ArrayBuffer>>;
  /** The values of a tensor of integers. Throws as `read`, and FormatError for integers beyond 2^53. */
  readIntegers(tensor: string): Promise<number[]>;
  /** The bytes of a tensor as they lie in the file. */
  readRaw(tensor: string): Promise<Uint8Array<ArrayBuffer>>;
  /** Fills `into` with the bytes of a tensor from `offset` on. Throws FormatError where the tensor has not so many. */
  readRange(tensor: string, offset: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** The limit of the format's own readers, in bytes. */
const MAX_HEADER = 100_000_000;

/**
 * Opens a file and checks its header (https://huggingface.co/docs/safetensors, "Format").
 * Throws FormatError naming the file, and the tensor where one is at fault.
 */
export async function openSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  const { name, size } = source;
  if (size < 8) throw new FormatError(name, `has ${size} bytes, too few for a safetensors file`);
  const prefix = await source.read(0, 8);
  const headerLength = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (headerLength > MAX_HEADER) {
    throw new FormatError(
      name,
      `header of ${headerLength} bytes is over the format's limit of ${MAX_HEADER}`,
    );
  }
  if (8 + headerLength > size) {
    throw new FormatError(name, `header of ${headerLength} bytes goes past the end of a file of ${size}`);
  }
  const dataStart = 8 + headerLength;
  const header = parseHeader(await source.read(8, headerLength), size - dataStart, name);

  const entryOf = (tensor: string): TensorEntry => {
    const entry = header.tensors.get(tensor);
    if (!entry) throw new FormatError(name, `has no tensor '${tensor}'`);
    return entry;
  };
  const readRaw = async (tensor: string) => {
    const { begin, end } = entryOf(tensor);
    return source.read(dataStart + begin, end - begin);
  };
  return {
    name,
    ...header,
    readRaw,
    async readRange(tensor, offset, into) {
      const { begin, end } = entryOf(tensor);
      if (!(offset >= 0 && begin + offset + into.length <= end)) {
        throw new FormatError(
          name,
          `tensor '${tensor}' has ${end - begin} bytes, asked for ${into.length} at ${offset}`,
        );
      }
      await source.readInto(dataStart + begin + offset, into);
    },
    async read(tensor) {
      const { dtype } = entryOf(tensor);
      const convert = floatReader(dtype);
      if (!convert) throw new UnsupportedError(`${name}: tensor '${tensor}' holds ${dtype}, expected floats`);
      return convert((await readRaw(tensor)).buffer);
    },
    async readIntegers(tensor) {
      const { dtype } = entryOf(tensor);
      const convert = integerReader(dtype);
      if (!convert)
        throw new UnsupportedError(`${name}: tensor '${tensor}' holds ${dtype}, expected integers`);
      const values = Array.from(convert((await readRaw(tensor)).buffer), Number);
      if (!values.every(Number.isSafeInteger)) {
        throw new FormatError(name, `tensor '${tensor}' holds integers beyond 2^53`);
      }
      return values;
    },
    close: () => source.close(),
  };
}

/**
 * Parses a header (without its length) and checks all that the format asks: no key twice, known types, each
 * tensor's bytes those of its shape, and the data of `dataLength` bytes covered without overlap or hole.
 * Throws FormatError naming `file` and the tensor.
 */
export function parseHeader(bytes: Uint8Array, dataLength: number, file: string): SafetensorsHeader {
  if (bytes[0] !== 0x7b)
    throw new FormatError(file, "is not a safetensors file: the header does not start with '{'");
  const text = decodeUtf8(bytes, file);
  const header = parseObject(text, file, "the header");
  const duplicate = duplicateKey(text);
  if (duplicate !== null) throw new FormatError(file, `the header has the key '${duplicate}' twice`);

  const tensors = new Map<string, TensorEntry>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") metadata = parseMetadata(value, file);
    else tensors.set(name, parseEntry(name, value, dataLength, file));
  }
  expectCovered(tensors, dataLength, file);
  return { tensors, metadata };
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (!isObject(value)) throw new FormatError(file, `'__metadata__' must be an object, got ${show(value)}`);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string") {
      throw new FormatError(file, `'__metadata__.${key}' must be a string, got ${show(text)}`);
    }
  }
  return value as Record<string, string>;
}

function parseEntry(name: string, value: unknown, dataLength: number, file: string): TensorEntry {
  const fail = (problem: string): never => {
    throw new FormatError(file, `tensor '${name}': ${problem}`);
  };
  if (!isObject(value)) return fail(`must be described by an object, got ${show(value)}`);

  const { dtype, shape, data_offsets: offsets } = value;
  const bits = typeof dtype === "string" ? bitsOf(dtype) : undefined;
  if (typeof dtype !== "string" || bits === undefined) return fail(`unknown dtype ${show(dtype)}`);
  if (!isCounts(shape)) return fail(`shape must be an array of non-negative integers, got ${show(shape)}`);
  if (!isCounts(offsets) || offsets.length !== 2) {
    return fail(`data_offsets must be two non-negative integers, got ${show(offsets)}`);
  }
  const [begin = 0, end = 0] = offsets;
  if (begin > end) fail(`data_offsets run backwards, from ${begin} to ${end}`);
  if (end > dataLength) fail(`data ends at byte ${end}, but the file has ${dataLength} bytes of data`);

  let size = 1;
  for (const dim of shape) {
    size *= dim;
    if (!Number.isSafeInteger(size * bits)) fail(`shape ${formatShape(shape)} is too large`);
  }
  if ((end - begin) * 8 !== size * bits) {
    fail(
      `${end - begin} bytes of data for ${dtype} of shape ${formatShape(shape)}, which needs ${(size * bits) / 8}`,
    );
  }
  return { dtype, shape, begin, end };
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/** The format forbids overlap and holes: no byte may hide from a reader, and none may serve two tensors. */
function expectCovered(tensors: ReadonlyMap<string, TensorEntry>, dataLength: number, file: string): void {
  let covered = 0;
  const inOrder = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  for (const [name, { begin, end }] of inOrder) {
    if (begin !== covered) {
      const what = begin < covered ? "overlaps the tensor before it" : "leaves a hole before it";
      throw new FormatError(
        file,
        `tensor '${name}': data from byte ${begin} ${what}, which ends at ${covered}`,
      );
    }
    covered = end;
  }
  if (covered !== dataLength) {
    throw new FormatError(file, `${dataLength - covered} bytes at the end belong to no tensor`);
  }
}

function floatReader(dtype: string): ((data: ArrayBuffer) => Float32Array<ArrayBuffer>) | undefined {
  switch (dtype) {
    case "F32":
      return (data) => new Float32Array(data);
    case "F16":
      return (data) => f16ToF32(new Uint16Array(data));
    case "BF16":
      return (data) => bf16ToF32(new Uint16Array(data));
    case "F64":
      return (data) => new Float32Array(new Float64Array(data));
    default:
      return undefined;
  }
}

function integerReader(dtype: string): ((data: ArrayBuffer) => Iterable<number | bigint>) | undefined {
  switch (dtype) {
    case "BOOL":
    case "U8":
      return (data) => new Uint8Array(data);
    case "I8":
      return (data) => new Int8Array(data);
    case "U16":
      return (data) => new Uint16Array(data);
    case "I16":
      return (data) => new Int16Array(data);
    case "U32":
      return (data) => new Uint32Array(data);
    case "I32":
      return (data) => new Int32Array(data);
    case "U64":
      return (data) => new BigUint64Array(data);
    case "I64":
      return (data) => new BigInt64Array(data);
    default:
      return undefined;
  }
}
