import type { AlongResult, Band } from "./evaluation.js";
import { mean, quantile } from "./metrics.js";

/** P(flag) along each of several responses. */
type Curves = readonly ArrayLike<number>[];

/** P(flag) at each position, over the responses of each class that reach it. */
export function alongResults(harmful: Curves, benign: Curves): AlongResult[] {
  const positions = [...harmful, ...benign].reduce((most, { length }) => Math.max(most, length), 0);
  return Array.from({ length: positions }, (_, position) => ({
    position,
    harmful: bandAt(harmful, position),
    benign: bandAt(benign, position),
  }));
}

function bandAt(curves: Curves, position: number): Band | null {
  const values = curves.flatMap((curve) => (position < curve.length ? [curve[position] as number] : []));
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  return {
    mean: mean(values),
    low: quantile(sorted, 0.1),
    high: quantile(sorted, 0.9),
    count: values.length,
  };
}
