/**
 * ONNX's operators by our ops. Ours work on the last dimension, are causal, and take heads behind positions: what
 * differs is reshaped and permuted on the host.
 */

import { attention } from "../../src/ops/attention.js";
import { crossEntropy } from "../../src/ops/cross-entropy.js";
import { embedding } from "../../src/ops/embedding.js";
import { gelu } from "../../src/ops/gelu.js";
import { layernorm } from "../../src/ops/layernorm.js";
import { matmul } from "../../src/ops/matmul.js";
import { rmsnorm } from "../../src/ops/rmsnorm.js";
import { rope } from "../../src/ops/rope.js";
import { softmax } from "../../src/ops/softmax.js";
import type { Tape } from "../../src/tape.js";
import { sizeOf } from "../../src/tensor.js";
import type { OnnxCase, OnnxTensor } from "./onnx-files.js";

/** Runs a case on the tape's backend: its first output, in ONNX's layout. Ours return no statistics beside it. */
export type OnnxOp = (tape: Tape, of: OnnxCase) => Promise<ArrayLike<number>>;

export const ONNX_OPS: Readonly<Record<string, OnnxOp>> = {
  MatMul: (tape, of) => matmul(tape, upload(tape, input(of, 0)), upload(tape, input(of, 1))).read(),

  Gather(tape, of) {
    expectAttribute(of, "axis", 0);
    const [data, indices] = [input(of, 0), input(of, 1)];
    const rows = data.shape[0] ?? 0;
    const table = upload(tape, data, [rows, data.values.length / rows]);
    return embedding(tape, table, ids(tape, indices)).read();
  },

  async Softmax(tape, of) {
    const x = input(of, 0);
    const rank = x.shape.length;
    const axis = axisOf(of, rank);
    // The order that swaps the axis with the last one undoes itself.
    const order = x.shape.map((_, i) => (i === axis ? rank - 1 : i === rank - 1 ? axis : i));
    const turned = permute(x, order);
    const values = await softmax(tape, upload(tape, turned)).read();
    return permute({ shape: turned.shape, values: Float32Array.from(values) }, order).values;
  },

  LayerNormalization(tape, of) {
    const { x, weight } = normalised(tape, of);
    const bias = upload(tape, input(of, 2), [weight.size]);
    return layernorm(tape, x, weight, bias, epsilon(of)).read();
  },

  RMSNormalization(tape, of) {
    const { x, weight } = normalised(tape, of);
    return rmsnorm(tape, x, weight, epsilon(of)).read();
  },

  Gelu: (tape, of) =>
    gelu(tape, upload(tape, input(of, 0)), of.attributes.approximate === "tanh" ? "tanh" : "erf").read(),

  /** Half-width types to f32: every row of a table in that type, decoded by the kernel. */
  Cast(tape, of) {
    const x = input(of, 0);
    if (!x.halves) throw new Error("Cast from a type that is no half-width float");
    const rows = x.shape[0] ?? 1;
    const table = tape.empty([rows, x.values.length / rows], x.halves.dtype);
    table.writeBytes(x.halves.bytes);
    return embedding(tape, table, tape.from(Uint32Array.from({ length: rows }, (_, i) => i))).read();
  },

  async RotaryEmbedding(tape, of) {
    const { interleaved = 0, rotary_embedding_dim: part = 0 } = of.attributes;
    if (part !== 0) throw new Error("RotaryEmbedding of a part of the head");
    const [x, cos, sin, positions] = [input(of, 0), input(of, 1), input(of, 2), input(of, 3)];
    const [batch = 0, , seq = 0] = x.shape;
    const turned = permute(x, HEADS_LAST);
    const each = turned.values.length / batch;
    const half = cos.shape.at(-1) ?? 0;
    const rowsAt = (table: OnnxTensor, of: Float32Array) =>
      tape.from(
        Float32Array.from({ length: seq * half }, (_, i) => {
          const at = of[Math.floor(i / half)] as number;
          return table.values[at * half + (i % half)] as number;
        }),
        [seq, half],
      );
    const values = new Float32Array(turned.values.length);
    for (let b = 0; b < batch; b++) {
      // Any position at any place: the table that a sequence gets has its own positions' rows.
      const own = positions.values.subarray(b * seq, (b + 1) * seq);
      const rows = tape.from(turned.values.slice(b * each, (b + 1) * each), [1, ...turned.shape.slice(1)]);
      const out = rope(tape, rows, rowsAt(cos, own), rowsAt(sin, own), { interleaved: interleaved === 1 });
      values.set(await out.read(), b * each);
    }
    return permute({ shape: turned.shape, values }, HEADS_LAST).values;
  },

  async Attention(tape, of) {
    const [q, k, v] = [input(of, 0), input(of, 1), input(of, 2)].map((x) => permute(x, HEADS_LAST));
    if (!q || !k || !v) throw new Error("Attention without q, k or v");
    const [batch = 0, queries = 0, heads = 0, dim = 0] = q.shape;
    const kv = k.shape[1] ?? 0;
    const scale = of.attributes.scale as number | undefined;
    const options = scale === undefined ? {} : { scale };
    if (of.attributes.is_causal === 1) {
      // ONNX puts the first query at the first key: the keys behind the last query are seen by none.
      const out = attention(tape, upload(tape, q), upload(tape, k), upload(tape, v), {
        ...options,
        kvLength: queries,
      });
      return permute({ shape: q.shape, values: Float32Array.from(await out.read()) }, HEADS_LAST).values;
    }
    // A query that stands at the last key sees all of them: each becomes a sequence of its own.
    const alone = tape.from(q.values, [batch * queries, 1, heads, dim]);
    const repeated = ({ shape, values }: OnnxTensor) => {
      const each = values.length / batch;
      const all = new Float32Array(values.length * queries);
      for (let i = 0; i < batch * queries; i++) {
        const b = Math.floor(i / queries);
        all.set(values.subarray(b * each, (b + 1) * each), i * each);
      }
      return tape.from(all, [batch * queries, kv, ...shape.slice(2)]);
    };
    const out = attention(tape, alone, repeated(k), repeated(v), options);
    return permute({ shape: q.shape, values: Float32Array.from(await out.read()) }, HEADS_LAST).values;
  },

  async SoftmaxCrossEntropyLoss(tape, of) {
    expectAttribute(of, "reduction", "mean");
    const losses = await crossEntropy(tape, upload(tape, input(of, 0)), ids(tape, input(of, 1))).read();
    return [losses.reduce((sum, x) => sum + x, 0) / losses.length];
  },
};

/** (batch, heads, positions, dim) to (batch, positions, heads, dim), and back. */
const HEADS_LAST = [0, 2, 1, 3];

function input({ inputs, op }: OnnxCase, index: number): OnnxTensor {
  const tensor = inputs[index];
  if (!tensor) throw new Error(`${op}: input ${index} is missing`);
  return tensor;
}

function upload(tape: Tape, { shape, values }: OnnxTensor, as = shape) {
  return tape.from(values, as);
}

function ids(tape: Tape, { values }: OnnxTensor) {
  return tape.from(Uint32Array.from(values));
}

function expectAttribute({ attributes, op }: OnnxCase, name: string, value: number | string): void {
  const found = attributes[name] ?? value;
  if (found !== value) throw new Error(`${op}: ${name} is ${found}, which no op of ours does`);
}

/** Both norms' default. */
function epsilon({ attributes }: OnnxCase): number {
  return (attributes.epsilon ?? 1e-5) as number;
}

/** Counted from the end where it is negative; the last by default, as every operator here has it. */
function axisOf({ attributes }: OnnxCase, rank: number): number {
  return (((attributes.axis ?? -1) as number) + rank) % rank;
}

/** All dimensions from the axis on as one row. */
function normalised(tape: Tape, of: OnnxCase) {
  const x = input(of, 0);
  const cols = sizeOf(x.shape.slice(axisOf(of, x.shape.length)));
  return {
    x: upload(tape, x, [x.values.length / cols, cols]),
    weight: upload(tape, input(of, 1), [cols]),
  };
}

/** The dimensions in another order: `order[i]` is where the result's i-th comes from. */
function permute({ shape, values }: OnnxTensor, order: readonly number[]): OnnxTensor {
  const strides = shape.map((_, i) => sizeOf(shape.slice(i + 1)));
  const turned = order.map((from) => shape[from] as number);
  const out = new Float32Array(values.length);
  for (let i = 0; i < out.length; i++) {
    let rest = i;
    let at = 0;
    for (let axis = order.length - 1; axis >= 0; axis--) {
      const size = turned[axis] as number;
      at += (rest % size) * (strides[order[axis] as number] as number);
      rest = Math.floor(rest / size);
    }
    out[i] = values[at] as number;
  }
  return { shape: turned, values: out };
}
