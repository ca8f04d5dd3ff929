/**
 * The declaration of a kernel: the single source that both backends bind by. The AssemblyScript export in
 * `assembly/` and the WGSL file in `kernels/` carry the same name and the same parameters in the same order:
 * writes (outputs, saved values, gradients), reads, dims, scalars. `test/contract.test.ts` holds them together.
 */

/** Numbers of a call, by name. */
export type Dims<D extends string> = Record<D, number>;

/** What a kernel is: names in calling order, and how its work is divided. */
export interface Kernel<
  W extends string = string,
  R extends string = string,
  D extends string = string,
  S extends string = string,
> {
  /**
   * The wasm export and the WGSL file. A gradient that is written has `d` before its name and is added to; a write
   * without it that a backward or a loss gives a gradient to is written over.
   */
  readonly name: string;
  readonly writes: readonly W[];
  /** A trailing `?` marks an operand that may be null (the kernel then never touches it). */
  readonly reads: readonly R[];
  /** Unsigned 32-bit integers. */
  readonly dims: readonly D[];
  /** f32. */
  readonly scalars: readonly S[];
  /** Extent of the outermost independent dimension, which wasm takes a half-open range of. */
  readonly range: (dims: Dims<D>) => number;
  /** Workgroups in x, y, z for the WGSL kernel. */
  readonly grid: (dims: Dims<D>) => readonly [x: number, y?: number, z?: number];
  /** Floating-point operations of a call; a few for every element of its operands where it says nothing. */
  readonly flops?: ((dims: Dims<D>) => number) | undefined;
}

/** Bytes of one block of a backend's memory. Binding offsets are multiples of 256. */
export interface Region {
  readonly block: Block;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** Memory that one backend handed out; only that backend looks inside. */
export interface Block {
  readonly byteLength: number;
}

type Operands<N extends string> = {
  [K in N as K extends `${string}?` ? never : K]: Region;
} & {
  [K in N as K extends `${infer Base}?` ? Base : never]: Region | null;
};

/** The arguments of a kernel, by name. */
export type KernelArgs<K> =
  K extends Kernel<infer W, infer R, infer D, infer S> ? Operands<W | R> & Record<D | S, number> : never;

/** Declares a kernel. Names are literal types, so a call with a wrong or missing argument does not compile. */
export function kernel<
  const W extends string,
  const R extends string,
  const D extends string,
  const S extends string = never,
>(spec: {
  name: string;
  writes: readonly W[];
  reads: readonly R[];
  dims: readonly D[];
  scalars?: readonly S[];
  range: (dims: Dims<D>) => number;
  grid: (dims: Dims<D>) => readonly [x: number, y?: number, z?: number];
  flops?: (dims: Dims<D>) => number;
}): Kernel<W, R, D, S> {
  return { ...spec, scalars: spec.scalars ?? [] };
}

/** WebGPU's guaranteed limit of workgroups in one dimension. */
const MAX_WORKGROUPS = 65535;

/**
 * A one-dimensional grid of `count` workgroups, folded into x and y where it is longer than WebGPU allows.
 * The kernel's index is `workgroup_id.x + workgroup_id.y * num_workgroups.x`; it must check its bounds.
 */
export function linearGrid(count: number): readonly [number, number] {
  if (count <= MAX_WORKGROUPS) return [Math.max(1, count), 1];
  const y = Math.ceil(count / MAX_WORKGROUPS);
  return [Math.ceil(count / y), y];
}
