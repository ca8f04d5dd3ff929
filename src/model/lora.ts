import { type DropoutOptions, dropout } from "../ops/dropout.js";
import { linear, matmul } from "../ops/matmul.js";
import type { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import type { Model } from "./model.js";

/** A low-rank addition to a linear layer: scale · B · A (Hu et al. 2021). */
export interface Lora {
  /** (rank, in) */
  readonly a: Tensor;
  /** (out, rank) */
  readonly b: Tensor;
  /** alpha / rank */
  readonly scale: number;
  /** Drops elements of what goes into A, as in training; none where nothing is said. */
  readonly dropout?: DropoutOptions | undefined;
}

/** Rows of the vocabulary that stand in for, or are appended to, those of the model. */
export interface TokenRows {
  /** Token id of each row; ids from the model's vocabulary size on, in order, are appended. */
  readonly ids: readonly number[];
  /** (rows, hidden): what the embedding gives for the ids. */
  readonly input: Tensor;
  /** (rows, hidden): what the head multiplies with; the same tensor where the model's are tied. */
  readonly output: Tensor;
}

/** What lies over a model's own weights: the same base serves the model in training and its reference. */
export interface Overlay {
  readonly rows?: TokenRows | undefined;
  /** The addition to the linear layer of that name, if it has one. */
  lora(name: string): Lora | undefined;
  /** What stands in for the model's own weight or bias of that name, if anything does. */
  weight?(name: string): Tensor | undefined;
}

/** The weight of that name, as the pass with this overlay sees it. */
export function weightUnder(model: Model, overlay: Overlay | undefined, name: string): Tensor {
  return overlay?.weight?.(name) ?? model.weight(name);
}

/** The linear layer of that name with what the overlay adds, on top of a residual: x (rows, in) to (rows, out). */
export function adaptedLinear(
  tape: Tape,
  model: Model,
  overlay: Overlay | undefined,
  name: string,
  x: Tensor,
  residual?: Tensor,
): Tensor {
  const weight = weightUnder(model, overlay, `${name}.weight`);
  const bias = overlay?.weight?.(`${name}.bias`) ?? model.bias(`${name}.bias`);
  const y = linear(tape, x, weight, { bias, residual });
  const lora = overlay?.lora(name);
  if (!lora) return y;
  const input = lora.dropout ? dropout(tape, x, lora.dropout) : x;
  const down = matmul(tape, input, lora.a, { transposeB: true });
  return matmul(tape, down, lora.b, { transposeB: true, alpha: lora.scale, into: y });
}
