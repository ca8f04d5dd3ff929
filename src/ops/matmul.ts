import { isStorage } from "../dtype.js";
import { kernel } from "../kernel.js";
import type { Tape } from "../tape.js";
import { formatShape, Tensor } from "../tensor.js";
import { accumulateKernel, add } from "./add.js";
import { biasBackwardKernel } from "./bias.js";
import { linearQuantised } from "./linear-quantised.js";
import { asMatrix, expectShape, expectTensor, withLast } from "./shapes.js";

/** Rows and columns of one workgroup's tile in `kernels/matmul.wgsl`. */
const TILE = 64;
/** Up to this many rows of A against transposed B it takes dot products, a workgroup for THIN_COLS columns. */
const THIN = 4;
const THIN_COLS = 16;

/** How the wasm kernel divides its work, as in `assembly/matmul.ts`: by columns, or by rows. */
const UNIT_COLS = 16;
const UNIT_ROWS = 48;
const DIVIDED_COLS = 64;

/**
 * out = alpha · A · B + base, or += without one. Strides in elements choose the transposition; `out_m` is the
 * distance of output rows, so that a product can fill some columns of a wider matrix, and `base_m` that of the
 * base's: 0 for one row (a bias).
 */
export const matmulKernel = kernel({
  name: "matmul",
  writes: ["out"],
  reads: ["a", "b", "base?"],
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
    "base_m",
    "has_base",
    "accumulate",
  ],
  scalars: ["alpha"],
  range: ({ batch, m, n, a_k }) =>
    batch *
    (n >= DIVIDED_COLS && (a_k === 1 || n >= m) ? Math.ceil(n / UNIT_COLS) : Math.ceil(m / UNIT_ROWS)),
  grid: ({ batch, m, n, a_k, b_k }) =>
    m <= THIN && a_k === 1 && b_k === 1
      ? [Math.ceil(n / THIN_COLS), 1, batch]
      : [Math.ceil(n / TILE), Math.ceil(m / TILE), batch],
  flops: ({ batch, m, k, n }) => 2 * batch * m * k * n,
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
    base: options.bias ?? null,
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
    base_m: 0,
    has_base: options.bias ? 1 : 0,
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

/** What a linear layer does besides its product. */
export interface LinearOptions {
  /** Added to every row: (out). */
  readonly bias?: Tensor | undefined;
  /** Added to the result, in the product's last pass: (…, out). */
  readonly residual?: Tensor | undefined;
  /** Width of the result where it is wider than `out`: the further columns are left for the caller. */
  readonly stride?: number;
}

/**
 * A linear layer: x (…, in) · weightᵀ + bias + residual = (…, out), weight (out, in) as PyTorch has it. A weight in
 * a storage format is decoded on the way.
 * @throws RangeError where the shapes do not fit
 */
export function linear(tape: Tape, x: Tensor, weight: Tensor, options: LinearOptions = {}): Tensor {
  if (weight instanceof Tensor && isStorage(weight.dtype)) {
    const { residual, ...rest } = options;
    const product = linearQuantised(tape, x, weight, rest);
    return residual ? add(tape, residual, product) : product;
  }
  const { rows, cols } = asMatrix("linear", "x", x);
  expectTensor("linear", "weight", weight, "f32", 2);
  const n = weight.shape[0] ?? 0;
  const { bias, residual, stride: width = n } = options;
  expectShape("linear", "weight", weight, [n, cols]);
  if (bias) expectShape("linear", "bias", bias, [n]);
  if (residual) expectShape("linear", "residual", residual, withLast(x.shape, n));
  if (width < n) throw new RangeError(`linear: stride must be at least ${n}, got ${width}`);
  if (residual && width !== n) throw new RangeError("linear: a wider result takes no residual");
  // One base a product: with a bias as well the residual takes a pass of its own.
  if (bias && residual) return add(tape, residual, linear(tape, x, weight, { bias }));

  const base = bias ?? residual;
  const common = { batch: 1, a_batch: 0, b_batch: 0, out_batch: 0, alpha: 1 };
  const out = tape.empty(withLast(x.shape, width));
  tape.run(matmulKernel, {
    ...common,
    ...{ out, a: x, b: weight, base: base ?? null, m: rows, k: cols, n },
    ...{ a_m: cols, a_k: 1, b_k: 1, b_n: cols, out_m: width },
    ...{ base_m: residual ? n : 0, has_base: base ? 1 : 0, accumulate: 0 },
  });
  return tape.record(out, [x, weight, bias, residual], () => {
    const dout = tape.grad(out);
    const gradient = { ...common, a: dout, base: null, base_m: 0, has_base: 0, accumulate: 1 };
    if (residual?.requiresGrad) {
      tape.run(accumulateKernel, { dx: tape.grad(residual), dout, n: out.size, scale: 1 });
    }
    if (x.requiresGrad) {
      const dx = { out: tape.grad(x), b: weight, m: rows, k: n, n: cols };
      tape.run(matmulKernel, { ...gradient, ...dx, a_m: width, a_k: 1, b_k: cols, b_n: 1, out_m: cols });
    }
    if (weight.requiresGrad) {
      const dw = { out: tape.grad(weight), b: x, m: n, k: rows, n: cols };
      tape.run(matmulKernel, { ...gradient, ...dw, a_m: 1, a_k: width, b_k: cols, b_n: 1, out_m: cols });
    }
    if (bias?.requiresGrad) {
      if (width !== n) throw new RangeError("linear: a bias in a wider result has no gradient");
      tape.run(biasBackwardKernel, { dbias: tape.grad(bias), dout, rows, cols: n });
    }
  });
}
