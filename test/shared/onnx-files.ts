/** Reads ONNX's conformance vectors: a model of one node, its inputs, and what must come out. */

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import protobuf from "protobufjs";
import { bf16ToF32, f16ToF32 } from "../../src/half.js";
import { sizeOf } from "../../src/tensor.js";

/** The fields of onnx.proto (IR version 10) that the vectors use, under their numbers there. */
const SCHEMA = `
  syntax = "proto3";
  message Tensor {
    repeated int64 dims = 1;
    int32 data_type = 2;
    repeated float float_data = 4;
    repeated int32 int32_data = 5;
    repeated int64 int64_data = 7;
    bytes raw_data = 9;
  }
  message Attribute { string name = 1; float f = 2; int64 i = 3; bytes s = 4; int32 type = 20; }
  message Node { repeated string input = 1; string op_type = 4; repeated Attribute attribute = 5; }
  message TensorType { int32 elem_type = 1; }
  message Type { TensorType tensor_type = 1; }
  message ValueInfo { string name = 1; Type type = 2; }
  message Graph { repeated Node node = 1; repeated ValueInfo input = 11; repeated ValueInfo output = 12; }
  message Model { Graph graph = 7; }
`;

/** TensorProto.DataType and AttributeProto.AttributeType. */
const TYPES = { float: 1, uint16: 4, int32: 6, int64: 7, f16: 10, bf16: 16 } as const;
const ATTRIBUTES = { float: 1, int: 2, string: 3 } as const;

/** A tensor of a file. */
export interface OnnxTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array<ArrayBuffer>;
  /** The bits of f16 and bf16 as they are stored. */
  readonly halves?: { readonly dtype: "f16" | "bf16"; readonly bytes: Uint8Array };
}

/** One data set of a folder. */
export interface OnnxCase {
  readonly op: string;
  readonly attributes: Readonly<Record<string, number | string>>;
  /** In the node's order; undefined where an optional one is left out. */
  readonly inputs: readonly (OnnxTensor | undefined)[];
  readonly outputs: readonly OnnxTensor[];
}

interface RawTensor {
  readonly dims: readonly number[];
  readonly dataType: number;
  readonly floatData: readonly number[];
  readonly int32Data: readonly number[];
  readonly int64Data: readonly number[];
  readonly rawData: Uint8Array;
}

interface RawValueInfo {
  readonly type: { readonly tensorType: { readonly elemType: number } };
}

interface RawModel {
  readonly graph: {
    readonly input: readonly RawValueInfo[];
    readonly output: readonly RawValueInfo[];
    readonly node: readonly {
      readonly input: readonly string[];
      readonly opType: string;
      readonly attribute: readonly {
        readonly name: string;
        readonly f: number;
        readonly i: number;
        readonly s: Uint8Array;
        readonly type: number;
      }[];
    }[];
  };
}

/** Reads every data set of a folder. */
export async function readOnnxCases(folder: string): Promise<OnnxCase[]> {
  const schema = protobuf.parse(SCHEMA).root;
  const read = async <T>(type: string, path: string): Promise<T> => {
    const message = schema.lookupType(type);
    return message.toObject(message.decode(await readFile(path)), { longs: Number, defaults: true }) as T;
  };
  const { graph } = await read<RawModel>("Model", join(folder, "model.onnx"));
  const [node, ...others] = graph.node;
  if (!node || others.length > 0) throw new Error(`${folder}: expected one node, got ${graph.node.length}`);
  const attributes = Object.fromEntries(
    node.attribute.map(({ name, type, f, i, s }) => {
      if (type === ATTRIBUTES.float) return [name, f];
      if (type === ATTRIBUTES.int) return [name, i];
      if (type === ATTRIBUTES.string) return [name, new TextDecoder().decode(s)];
      throw new Error(`${folder}: attribute '${name}' has type ${type}`);
    }),
  );
  const sets = (await readdir(folder)).filter((name) => name.startsWith("test_data_set_")).sort();
  return Promise.all(
    sets.map(async (set) => {
      const files = await readdir(join(folder, set));
      const tensors = (kind: "input" | "output") =>
        Promise.all(
          Array.from({ length: files.filter((name) => name.startsWith(`${kind}_`)).length }, async (_, i) => {
            const raw = await read<RawTensor>("Tensor", join(folder, set, `${kind}_${i}.pb`));
            const declared = graph[kind][i]?.type.tensorType.elemType ?? raw.dataType;
            // NumPy has no bf16: its bits lie in the file as uint16, and only the graph says what they are.
            return tensorOf(raw.dataType === TYPES.uint16 ? { ...raw, dataType: declared } : raw);
          }),
        );
      const given = await tensors("input");
      return {
        op: node.opType,
        attributes,
        inputs: node.input.map((name) => (name === "" ? undefined : given.shift())),
        outputs: await tensors("output"),
      };
    }),
  );
}

function tensorOf(raw: RawTensor): OnnxTensor {
  const shape = raw.dims;
  const { values, halves } = valuesOf(raw);
  if (values.length !== sizeOf(shape)) throw new Error(`${values.length} values for shape (${shape})`);
  return { shape, values, ...(halves && { halves }) };
}

function valuesOf(raw: RawTensor): Pick<OnnxTensor, "values" | "halves"> {
  // A copy, since the typed arrays want their bytes aligned.
  const bytes = Uint8Array.from(raw.rawData);
  const isRaw = bytes.length > 0;
  switch (raw.dataType) {
    case TYPES.float:
      return { values: isRaw ? new Float32Array(bytes.buffer) : Float32Array.from(raw.floatData) };
    case TYPES.int32:
      return { values: Float32Array.from(isRaw ? new Int32Array(bytes.buffer) : raw.int32Data) };
    case TYPES.int64:
      return {
        values: Float32Array.from(isRaw ? new BigInt64Array(bytes.buffer) : raw.int64Data, Number),
      };
    case TYPES.f16:
    case TYPES.bf16: {
      const bits = isRaw ? new Uint16Array(bytes.buffer) : Uint16Array.from(raw.int32Data);
      const dtype = raw.dataType === TYPES.f16 ? "f16" : "bf16";
      const values = dtype === "f16" ? f16ToF32(bits) : bf16ToF32(bits);
      return { values, halves: { dtype, bytes: new Uint8Array(bits.buffer) } };
    }
    default:
      throw new Error(`a tensor of data type ${raw.dataType}`);
  }
}
