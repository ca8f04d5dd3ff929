import type { MemoryUse } from "../../backend.js";
import type { Block } from "../../kernel.js";

/** `GPUBufferUsage` and `GPUMapMode`; Node has no such globals. */
export const MAP_READ = 0x1;
export const COPY_SRC = 0x4;
export const COPY_DST = 0x8;
export const UNIFORM = 0x40;
export const STORAGE = 0x80;
export const MAP_MODE_READ = 0x1;

/** Staging buffers above this size are given back after use. */
const POOLED_BYTES = 16 << 20;

/** A block of the device's memory. */
export class GPUBlock implements Block {
  /** The batch of commands, not yet submitted, that last used it. */
  batch = -1;

  /** @param id never used again, so that it can stand for the buffer in a cache's key */
  constructor(
    readonly id: number,
    readonly buffer: GPUBuffer,
    readonly byteLength: number,
    readonly use: MemoryUse | "scratch",
  ) {}
}

/** Buffers that the host reads through, by powers of two. */
export class Staging {
  readonly #idle: GPUBuffer[] = [];
  #bytes = 0;

  constructor(readonly device: GPUDevice) {}

  /** Bytes held. */
  get bytes(): number {
    return this.#bytes;
  }

  take(byteLength: number): GPUBuffer {
    const at = this.#idle.findIndex((buffer) => buffer.size >= byteLength && buffer.size <= 4 * byteLength);
    const [buffer] = at < 0 ? [] : this.#idle.splice(at, 1);
    if (buffer) return buffer;
    const size = byteLength > POOLED_BYTES ? byteLength : 2 ** Math.max(8, Math.ceil(Math.log2(byteLength)));
    this.#bytes += size;
    return this.device.createBuffer({ size, usage: MAP_READ | COPY_DST });
  }

  /** Takes back a buffer that is no longer mapped. */
  give(buffer: GPUBuffer): void {
    if (buffer.size > POOLED_BYTES) this.drop(buffer);
    else this.#idle.push(buffer);
  }

  /** Gives up a buffer, in whatever state it is. */
  drop(buffer: GPUBuffer): void {
    this.#bytes -= buffer.size;
    buffer.destroy();
  }

  dispose(): void {
    for (const buffer of this.#idle.splice(0)) this.drop(buffer);
  }
}

/** Bytes of one dispatch's parameters: WebGPU's alignment of dynamic offsets. */
const SLOT = 256;

/**
 * The parameters of a batch of dispatches: one uniform buffer, written at once before the batch is submitted.
 * The queue keeps the order, so the next batch may write over it.
 */
export class ParameterArena {
  readonly buffer: GPUBuffer;
  readonly #bytes: ArrayBuffer;
  readonly #u32: Uint32Array;
  readonly #f32: Float32Array;
  #used = 0;

  /** @param slots dispatches of a batch */
  constructor(
    readonly device: GPUDevice,
    slots: number,
  ) {
    this.#bytes = new ArrayBuffer(slots * SLOT);
    this.#u32 = new Uint32Array(this.#bytes);
    this.#f32 = new Float32Array(this.#bytes);
    this.buffer = device.createBuffer({ size: slots * SLOT, usage: UNIFORM | COPY_DST });
  }

  get full(): boolean {
    return this.#used === this.#bytes.byteLength;
  }

  /** What a bind group binds; the slot comes by its dynamic offset. */
  get binding(): GPUBufferBinding {
    return { buffer: this.buffer, size: SLOT };
  }

  /** Stores the dims and scalars of one dispatch; returns the offset of its slot. */
  push(
    values: Readonly<Record<string, unknown>>,
    dims: readonly string[],
    scalars: readonly string[],
  ): number {
    const offset = this.#used;
    this.#used += SLOT;
    let at = offset / 4;
    for (const name of dims) this.#u32[at++] = values[name] as number;
    for (const name of scalars) this.#f32[at++] = values[name] as number;
    return offset;
  }

  /** Hands the slots to the queue and starts again. */
  flush(): void {
    if (this.#used > 0) this.device.queue.writeBuffer(this.buffer, 0, this.#bytes, 0, this.#used);
    this.#used = 0;
  }

  dispose(): void {
    this.buffer.destroy();
  }
}
