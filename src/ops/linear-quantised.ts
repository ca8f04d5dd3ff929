import { type DType, isStorage, storageCode } from "../dtype.js";
import { kernel } from "../kernel.js";
import type { Tape } from "../tape.js";
import { formatShape, Tensor } from "../tensor.js";
import { biasBackwardKernel } from "./bias.js";
import type { LinearOptions } from "./matmul.js";
import { asMatrix, expectShape, withLast } from "./shapes.js";

/** Rows and columns of one workgroup's tile in `kernels/linear_quantised.wgsl` and its backward. */
const TILE = 64;
/** Up to this many rows of x it takes dot products, a workgroup for THIN_COLS columns. */
const THIN = 4;
const THIN_COLS = 16;
/** Columns of out, and of dx, in a unit of the wasm kernels' ranges: `assembly/linear-quantised.ts`. */
const COLS_PER_UNIT = 16;
const BACKWARD_COLS_PER_UNIT = 32;

export const linearQuantisedKernel = kernel({
  name: "linear_quantised",
  writes: ["out"],
  reads: ["x", "weight", "bias?"],
  dims: ["rows", "k", "n", "out_m", "weight_type", "has_bias"],
  range: ({ n }) => Math.ceil(n / COLS_PER_UNIT),
  grid: ({ rows, n }) =>
    rows <= THIN ? [Math.ceil(n / THIN_COLS)] : [Math.ceil(n / TILE), Math.ceil(rows / TILE)],
  flops: ({ rows, k, n }) => 2 * rows * k * n,
});

export const linearQuantisedBackwardKernel = kernel({
  name: "linear_quantised_backward",
  writes: ["dx"],
  reads: ["dout", "weight"],
  dims: ["rows", "k", "n", "out_m", "weight_type"],
  range: ({ k }) => Math.ceil(k / BACKWARD_COLS_PER_UNIT),
  grid: ({ rows, k }) => [Math.ceil(k / TILE), Math.ceil(rows / TILE)],
  flops: ({ rows, k, n }) => 2 * rows * k * n,
});

/**
 * The kernels' number of a weight's storage format. Throws unless it is a matrix in one. Such have no gradient: what
 * small steps add would be lost in rounding. An adapter over them is trained instead.
 */
export function expectWeight(op: string, name: string, weight: Tensor): number {
  if (!(weight instanceof Tensor))
    throw new TypeError(`${op}: ${name} must be a Tensor, got ${typeof weight}`);
  const dtype: DType = weight.dtype;
  if (!isStorage(dtype))
    throw new TypeError(`${op}: ${name} holds ${dtype}, expected f16, bf16, q8_0 or q4_0`);
  if (weight.shape.length !== 2) {
    throw new RangeError(`${op}: ${name} has shape ${formatShape(weight.shape)}, expected 2 dimensions`);
  }
  if (weight.requiresGrad) throw new TypeError(`${op}: ${name} is stored as ${dtype} and cannot be trained`);
  return storageCode(dtype);
}

/**
 * A linear layer over stored weights: x (…, in) · weightᵀ + bias = (…, out), weight (out, in) in f16, bf16, q8_0 or
 * q4_0. The backward gives x (and the bias) a gradient. On wasm, up to 8 rows of x are rounded to 8 bits in blocks
 * of 32 before they meet q8_0 or q4_0; `assembly/linear-quantised.ts` has the bound.
 * @throws RangeError where the shapes do not fit, TypeError for a weight that is f32 or requires a gradient
 */
export function linearQuantised(
  tape: Tape,
  x: Tensor,
  weight: Tensor,
  { bias, stride }: Omit<LinearOptions, "residual"> = {},
): Tensor {
  const { rows, cols: k } = asMatrix("linear", "x", x);
  const weight_type = expectWeight("linear", "weight", weight);
  const n = weight.shape[0] ?? 0;
  expectShape("linear", "weight", weight, [n, k], weight.dtype);
  if (bias) expectShape("linear", "bias", bias, [n]);
  const out_m = stride ?? n;
  if (out_m < n) throw new RangeError(`linear: stride must be at least ${n}, got ${out_m}`);

  const out = tape.empty(withLast(x.shape, out_m));
  const dims = { rows, k, n, out_m, weight_type };
  tape.run(linearQuantisedKernel, { out, x, weight, bias: bias ?? null, ...dims, has_bias: bias ? 1 : 0 });
  return tape.record(out, [x, bias], () => {
    const dout = tape.grad(out);
    if (x.requiresGrad) tape.run(linearQuantisedBackwardKernel, { dx: tape.grad(x), dout, weight, ...dims });
    if (bias?.requiresGrad) {
      if (out_m !== n) throw new RangeError("linear: a bias in a wider result has no gradient");
      tape.run(biasBackwardKernel, { dbias: tape.grad(bias), dout, rows, cols: n });
    }
  });
}
