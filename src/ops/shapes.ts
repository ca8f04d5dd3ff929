import type { DType } from "../dtype.js";
import { formatShape, Tensor } from "../tensor.js";

/** Throws unless `tensor` is a tensor of that shape and element type; `op` and `name` go into the message. */
export function expectShape(
  op: string,
  name: string,
  tensor: Tensor,
  shape: readonly number[],
  dtype: DType = "f32",
): void {
  expectTensor(op, name, tensor, dtype);
  if (tensor.shape.length !== shape.length || tensor.shape.some((dim, i) => dim !== shape[i])) {
    throw new RangeError(
      `${op}: ${name} has shape ${formatShape(tensor.shape)}, expected ${formatShape(shape)}`,
    );
  }
}

/** Throws unless `tensor` is a tensor of that element type and, where given, rank. */
export function expectTensor(
  op: string,
  name: string,
  tensor: Tensor,
  dtype: DType = "f32",
  rank?: number,
): void {
  if (!(tensor instanceof Tensor))
    throw new TypeError(`${op}: ${name} must be a Tensor, got ${typeof tensor}`);
  if (tensor.dtype !== dtype) throw new TypeError(`${op}: ${name} holds ${tensor.dtype}, expected ${dtype}`);
  if (rank !== undefined && tensor.shape.length !== rank) {
    throw new RangeError(
      `${op}: ${name} has shape ${formatShape(tensor.shape)}, expected ${rank} dimensions`,
    );
  }
}

/** A tensor as a matrix: all but the last dimension are rows. */
export function asMatrix(op: string, name: string, tensor: Tensor): { rows: number; cols: number } {
  expectTensor(op, name, tensor);
  const cols = tensor.shape.at(-1);
  if (!cols)
    throw new RangeError(`${op}: ${name} has shape ${formatShape(tensor.shape)}, expected rows of numbers`);
  return { rows: tensor.size / cols, cols };
}

/** Throws unless `value` is an integer in [least, most]. */
export function expectInteger(
  op: string,
  name: string,
  value: number,
  least: number,
  most = 2 ** 31 - 1,
): void {
  if (typeof value !== "number") throw new TypeError(`${op}: ${name} must be a number, got ${typeof value}`);
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${op}: ${name} must be an integer from ${least} to ${most}, got ${value}`);
  }
}

/** The same shape with another last dimension. */
export function withLast(shape: readonly number[], last: number): number[] {
  return [...shape.slice(0, -1), last];
}

/** Throws where the tensor has a gradient, for an op that writes its own over the tensor. */
export function expectNoGradient(op: string, name: string, tensor: Tensor): void {
  if (tensor.grad) {
    throw new TypeError(
      `${op}: ${name} ${formatShape(tensor.shape)} has a gradient, expected none: the op writes over ${name}`,
    );
  }
}
