import type { Backend } from "../../backend.js";
import { matmul } from "../../ops/matmul.js";
import { Tape } from "../../tape.js";
import { Arena } from "../../tensor.js";
import type { BenchCase } from "./case.js";
import { noise } from "./noise.js";
import { type Prepared, pick, timed } from "./serve.js";

/** Squares, and what a transformer's MLP multiplies: T×D by D×4D. [M, K, N]. */
const SQUARES = [192, 384, 768, 1536].map((n) => [n, n, n] as const);
const LAYERS = [
  [256, 288, 1152],
  [1024, 512, 2048],
] as const;

function matmulCase(bench: string, shape: readonly [number, number, number]): BenchCase {
  const [m, k, n] = shape;
  const work = 2 * m * k * n;
  return {
    bench,
    shape,
    dtype: "f32",
    unit: "GFLOP/s",
    work,
    demand: { of: "peak", amount: work },
    tolerance: 1e-3,
  };
}

/**
 * Products (M, K) · (K, N). `matmul_nt` is given B as (N, K), what a linear layer does; `matmul_tn` is given A as
 * (K, M), what the gradient of its weight does.
 */
export const matmulCases: readonly BenchCase[] = [
  ...SQUARES.map((shape) => matmulCase("matmul", shape)),
  ...LAYERS.flatMap((shape) => ["matmul", "matmul_nt", "matmul_tn"].map((bench) => matmulCase(bench, shape))),
];

export async function prepareMatmul(backend: Backend, { bench, shape }: BenchCase): Promise<Prepared> {
  const [m = 0, k = 0, n = 0] = shape;
  const options = { transposeA: bench === "matmul_tn", transposeB: bench === "matmul_nt" };
  const arena = new Arena(backend);
  const inputs = new Tape(arena, false);
  const a = inputs.from(noise(m * k, 0), options.transposeA ? [k, m] : [m, k]);
  const b = inputs.from(noise(k * n, 1), options.transposeB ? [n, k] : [k, n]);
  const mark = arena.mark();
  const product = () => {
    arena.release(mark);
    return matmul(new Tape(arena, false), a, b, options);
  };
  return {
    sample: async () => pick(await product().read()),
    measure: timed(async () => {
      product();
      await backend.synchronize();
    }),
    dispose: () => arena.dispose(),
  };
}
