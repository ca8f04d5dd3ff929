import { kernel, linearGrid } from "../kernel.js";

/** One step on a block of parameters; `train/optimiser.ts` calls it. */
export const adamwKernel = kernel({
  name: "adamw",
  writes: ["param", "m", "v"],
  reads: ["grad"],
  dims: ["n"],
  scalars: [
    "lr",
    "beta1",
    "rest1",
    "beta2",
    "rest2",
    "eps",
    "weight_decay",
    "correction1",
    "correction2",
    "grad_scale",
  ],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});
