import { kernel } from "../kernel.js";
import type { Tape } from "../tape.js";
import { formatShape, type Tensor } from "../tensor.js";
import { biasBackwardKernel } from "./bias.js";
import { asMatrix, expectShape, expectTensor, withLast } from "./shapes.js";

/** Rows and columns of one workgroup's tile in `kernels/matmul.wgsl`. */
const TILE = 64;
/** Up to this many rows of A against transposed B it takes dot products, a workgroup for THIN_COLS columns. */
const THIN = 4;
const THIN_COLS = 16;

/**
 * out = alpha · A · B + bias, or += without bias. Strides in elements choose the transposition; `out_m` is the
 * distance of output rows, so that a product can fill some columns of a wider matrix.
 */
export const matmulKernel = kernel({
  name: "matmul",
  writes: ["out"],
  reads: ["a", "b", "bias?"],
  dims: [
    "batch",
    "m",
    "k",
    "n",
    "a_batch",
    "a_m",
    "a_k",
    "b_batch",
    "b_k",
    "b_n",
    "out_batch",
    "out_m",
    "has_bias",
    "accumulate",
  ],
  scalars: ["alpha"],
  range: ({ batch, m }) => batch * m,
  grid: ({ batch, m, n, a_k, b_k }) =>
    m <= THIN && a_k === 1 && b_k === 1
      ? [Math.ceil(n / THIN_COLS), 1, batch]
      : [Math.ceil(n / TILE), Math.ceil(m / TILE), batch],
});

/** How a product is put together. */
export interface MatmulOptions {
  /** A is given as (k, m). */
  readonly transposeA?: boolean;
  /** B is given as (n, k). */
  readonly transposeB?: boolean;
  /** Added to every row: (n). */
  readonly bias?: Tensor;
  /** Factor of the product. */
  readonly alpha?: number;
  /** Add to this tensor instead of making one. */
  readonly into?: Tensor;
}

interface Dims {
  batch: number;
  m: number;
  k: number;
  n: number;
}

function matmulDims(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): Dims {
  const problem = `matmul: a ${formatShape(a.shape)}${transposeA ? "ᵀ" : ""} and b ${formatShape(b.shape)}${transposeB ? "ᵀ" : ""}`;
  if (a.shape.length < 2 || a.shape.length !== b.shape.length) {
    throw new RangeError(`${problem} must both be matrices, or batches of them of one rank`);
  }
  const [aRows = 0, aCols = 0] = a.shape.slice(-2);
  const [bRows = 0, bCols = 0] = b.shape.slice(-2);
  const [m, k] = transposeA ? [aCols, aRows] : [aRows, aCols];
  const [bk, n] = transposeB ? [bCols, bRows] : [bRows, bCols];
  if (k !== bk) throw new RangeError(`${problem} do not share their inner dimension: ${k} and ${bk}`);
  if (a.shape.slice(0, -2).join() !== b.shape.slice(0, -2).join()) {
    throw new RangeError(`${problem} do not share their batch dimensions`);
  }
  return { batch: a.shape.slice(0, -2).reduce((x, y) => x * y, 1), m, k, n };
}

/** One dispatch of the product of contiguous matrices. */
function product(
  tape: Tape,
  out: Tensor,
  a: Tensor,
  b: Tensor,
  { batch, m, k, n }: Dims,
  transposeA: boolean,
  transposeB: boolean,
  options: { bias?: Tensor | undefined; alpha: number; accumulate: boolean; outStride?: number },
): void {
  const outStride = options.outStride ?? n;
  tape.run(matmulKernel, {
    out,
    a,
    b,
    bias: options.bias ?? null,
    batch,
    m,
    k,
    n,
    a_batch: m * k,
    a_m: transposeA ? 1 : k,
    a_k: transposeA ? m : 1,
    b_batch: k * n,
    b_k: transposeB ? 1 : n,
    b_n: transposeB ? k : 1,
    out_batch: m * outStride,
    out_m: outStride,
    has_bias: options.bias ? 1 : 0,
    accumulate: options.accumulate ? 1 : 0,
    alpha: options.alpha,
  });
}

/**
 * The product of two matrices, or of two batches of matrices of one rank: (…, m, k) · (…, k, n) = (…, m, n).
 * @throws RangeError where the shapes do not fit
 */
export function matmul(tape: Tape, a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { transposeA = false, transposeB = false, bias, alpha = 1, into } = options;
  expectTensor("matmul", "a", a);
  expectTensor("matmul", "b", b);
  const dims = matmulDims(a, b, transposeA, transposeB);
  const { batch, m, k, n } = dims;
  const shape = [...a.shape.slice(0, -2), m, n];
  if (bias) expectShape("matmul", "bias", bias, [n]);
  if (bias && into) throw new TypeError("matmul: bias and into exclude each other");
  if (into) expectShape("matmul", "into", into, shape);

  const out = into ?? tape.empty(shape);
  product(tape, out, a, b, dims, transposeA, transposeB, { bias, alpha, accumulate: into !== undefined });
  return tape.record(out, [a, b, bias], () => {
    const dout = tape.grad(out);
    const gradient = { alpha, accumulate: true };
    if (a.requiresGrad) {
      // dA = dOut · Bᵀ, or its transpose B · dOutᵀ where A was given transposed.
      const da = tape.grad(a);
      if (transposeA) product(tape, da, b, dout, { batch, m: k, k: n, n: m }, transposeB, true, gradient);
      else product(tape, da, dout, b, { batch, m, k: n, n: k }, false, !transposeB, gradient);
    }
    if (b.requiresGrad) {
      const db = tape.grad(b);
      if (transposeB) product(tape, db, dout, a, { batch, m: n, k: m, n: k }, true, transposeA, gradient);
      else product(tape, db, a, dout, { batch, m: k, k: m, n }, !transposeA, false, gradient);
    }
    if (bias?.requiresGrad) {
      tape.run(biasBackwardKernel, { dbias: tape.grad(bias), dout, rows: batch * m, cols: n });
    }
  });
}

/**
 * A linear layer: x (…, in) · weightᵀ + bias = (…, out), weight (out, in) as PyTorch has it.
 * @param stride width of the result where it is wider than `out`: the further columns are left for the caller
 */
export function linear(tape: Tape, x: Tensor, weight: Tensor, bias?: Tensor, stride?: number): Tensor {
  const { rows, cols } = asMatrix("linear", "x", x);
  expectTensor("linear", "weight", weight, "f32", 2);
  const n = weight.shape[0] ?? 0;
  expectShape("linear", "weight", weight, [n, cols]);
  if (bias) expectShape("linear", "bias", bias, [n]);
  const width = stride ?? n;
  if (width < n) throw new RangeError(`linear: stride must be at least ${n}, got ${width}`);

  const out = tape.empty(withLast(x.shape, width));
  product(tape, out, x, weight, { batch: 1, m: rows, k: cols, n }, false, true, {
    bias,
    alpha: 1,
    accumulate: false,
    outStride: width,
  });
  return tape.record(out, [x, weight, bias], () => {
    const dout = tape.grad(out);
    const strided = {
      bias: null,
      batch: 1,
      a_batch: 0,
      b_batch: 0,
      out_batch: 0,
      has_bias: 0,
      accumulate: 1,
      alpha: 1,
    };
    if (x.requiresGrad) {
      const dx = { out: tape.grad(x), a: dout, b: weight, m: rows, k: n, n: cols };
      tape.run(matmulKernel, { ...strided, ...dx, a_m: width, a_k: 1, b_k: cols, b_n: 1, out_m: cols });
    }
    if (weight.requiresGrad) {
      const dw = { out: tape.grad(weight), a: dout, b: x, m: n, k: rows, n: cols };
      tape.run(matmulKernel, { ...strided, ...dw, a_m: 1, a_k: width, b_k: cols, b_n: 1, out_m: cols });
    }
    if (bias?.requiresGrad) {
      if (width !== n) throw new RangeError("linear: a bias in a wider result has no gradient");
      tape.run(biasBackwardKernel, { dbias: tape.grad(bias), dout, rows, cols: n });
    }
  });
}
