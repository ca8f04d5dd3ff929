/** How the learning rate goes from step to step. */
export interface Schedule {
  readonly lr: number;
  readonly steps: number;
  /** Steps over which the rate rises linearly to `lr`. */
  readonly warmup: number;
  /** After the warm-up: half a cosine down to 0, or no change. */
  readonly decay: "cosine" | "constant";
}

/** The learning rate of a step, counted from 0. */
export function learningRate({ lr, steps, warmup, decay }: Schedule, step: number): number {
  if (step < warmup) return (lr * (step + 1)) / warmup;
  if (decay === "constant") return lr;
  const progress = (step - warmup) / Math.max(1, steps - warmup);
  return lr * 0.5 * (1 + Math.cos(Math.PI * Math.min(1, progress)));
}
