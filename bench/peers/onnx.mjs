// ONNX files of one node, written without a library: the protobuf messages of onnx.proto (IR version 8, opset 17).

const VARINT = 0;
const BYTES = 2;
const FLOAT = 1;
const INT_ATTRIBUTE = 2;

/** A varint, little end first, 7 bits a byte. */
function varint(value) {
  const bytes = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return [...bytes, rest];
}

/** A field of a message: a number, a text, or a message as bytes. */
function field(number, value) {
  if (typeof value === "number") return [...varint((number << 3) | VARINT), ...varint(value)];
  const bytes = typeof value === "string" ? [...Buffer.from(value)] : value;
  return [...varint((number << 3) | BYTES), ...varint(bytes.length), ...bytes];
}

/** ValueInfoProto: a matrix of f32. */
function matrix(name, dims) {
  const shape = dims.flatMap((dim) => field(1, field(1, dim)));
  const tensor = [...field(1, FLOAT), ...field(2, shape)];
  return [...field(1, name), ...field(2, field(1, tensor))];
}

/** AttributeProto: an integer. */
function attribute(name, value) {
  return [...field(1, name), ...field(3, value), ...field(20, INT_ATTRIBUTE)];
}

/**
 * A model `c = a · b` of a (M, K) and b (K, N), both inputs; with `transposeA` a is given as (K, M), with
 * `transposeB` b as (N, K). Gemm has the transposition as an attribute.
 */
export function matmulModel([m, k, n], { transposeA, transposeB }) {
  const isPlain = !transposeA && !transposeB;
  const attributes = [attribute("transA", Number(transposeA)), attribute("transB", Number(transposeB))];
  const node = [
    ...field(1, "a"),
    ...field(1, "b"),
    ...field(2, "c"),
    ...field(4, isPlain ? "MatMul" : "Gemm"),
    ...(isPlain ? [] : attributes.flatMap((bytes) => field(5, bytes))),
  ];
  const graph = [
    ...field(1, node),
    ...field(2, "matmul"),
    ...field(11, matrix("a", transposeA ? [k, m] : [m, k])),
    ...field(11, matrix("b", transposeB ? [n, k] : [k, n])),
    ...field(12, matrix("c", [m, n])),
  ];
  return Uint8Array.from([...field(1, 8), ...field(7, graph), ...field(8, field(2, 17))]);
}
