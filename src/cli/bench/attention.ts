import type { Backend } from "../../backend.js";
import { attention } from "../../ops/attention.js";
import { Tape } from "../../tape.js";
import { Arena, type Tensor } from "../../tensor.js";
import type { BenchCase } from "./case.js";
import { noise } from "./noise.js";
import { type Prepared, pick, timed } from "./serve.js";

/** Batch, length, heads, size of a head. */
const SHAPES = [
  [1, 256, 8, 64],
  [1, 1024, 8, 64],
  [1, 256, 8, 8],
  [1, 256, 8, 16],
] as const;

/** Causal attention, forward and forward with backward. Operations of the causal half only. */
export const attentionCases: readonly BenchCase[] = SHAPES.flatMap((shape) =>
  [false, true].map((backward) => {
    const [batch, length, heads, headDim] = shape;
    // Two products forward, five more backward, each over half of the length².
    const products = backward ? 7 : 2;
    const work = products * batch * length * length * heads * headDim;
    return {
      bench: backward ? "attention+backward" : "attention",
      shape,
      dtype: "f32",
      unit: "GFLOP/s",
      work,
      demand: { of: "peak", amount: work },
      tolerance: 1e-3,
    };
  }),
);

export async function prepareAttention(backend: Backend, { bench, shape }: BenchCase): Promise<Prepared> {
  const isBackward = bench === "attention+backward";
  const size = shape.reduce((product, dim) => product * dim, 1);
  const arena = new Arena(backend);
  const inputs = new Tape(arena, false);
  const [q, k, v, seed] = [0, 1, 2, 3].map((stream) => inputs.from(noise(size, stream), shape)) as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
  ];
  for (const x of isBackward ? [q, k, v] : []) {
    x.requiresGrad = true;
    x.grad = inputs.filled(shape, 0);
  }
  const mark = arena.mark();
  const pass = () => {
    arena.release(mark);
    const tape = new Tape(arena, isBackward);
    const out = attention(tape, q, k, v);
    if (!isBackward) return [out];
    out.grad = seed;
    tape.backward();
    return [q, k, v].map((x) => x.grad as Tensor);
  };
  return {
    async sample() {
      const picked: number[] = [];
      for (const result of pass()) picked.push(...pick(await result.read()));
      return picked;
    },
    measure: timed(async () => {
      pass();
      await backend.synchronize();
    }),
    dispose: () => arena.dispose(),
  };
}
