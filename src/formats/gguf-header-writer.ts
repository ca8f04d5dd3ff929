import type { GgufEntry } from "./gguf-entry.js";

/** The numbers of the types of values that we write (`enum gguf_type` in gguf.h). */
const TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;

/** The fields of a GGUF header one after the other, little-endian, in a buffer that grows. */
export class GgufHeaderWriter {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  readonly #encoder = new TextEncoder();

  u32(value: number): void {
    const at = this.#next(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#next(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  #i32(value: number): void {
    const at = this.#next(4);
    this.#view.setInt32(at, value, true);
  }

  #f32(value: number): void {
    const at = this.#next(4);
    this.#view.setFloat32(at, value, true);
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#next(bytes.length);
    this.#bytes.set(bytes, at);
  }

  string(text: string): void {
    const bytes = this.#encoder.encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }

  /** A key of the metadata and its value. */
  entry(key: string, entry: GgufEntry): void {
    this.string(key);
    switch (entry.type) {
      case "u32":
        this.u32(TYPES.u32);
        this.u32(entry.value);
        break;
      case "f32":
        this.u32(TYPES.f32);
        this.#f32(entry.value);
        break;
      case "bool":
        this.u32(TYPES.bool);
        this.bytes(Uint8Array.of(entry.value ? 1 : 0));
        break;
      case "string":
        this.u32(TYPES.string);
        this.string(entry.value);
        break;
      case "strings":
        this.#list(TYPES.string, entry.value, (text) => this.string(text));
        break;
      case "f32s":
        this.#list(TYPES.f32, entry.value, (value) => this.#f32(value));
        break;
      case "i32s":
        this.#list(TYPES.i32, entry.value, (value) => this.#i32(value));
        break;
    }
  }

  /** All bytes so far, and zeros up to a multiple. */
  padded(multiple: number): Uint8Array<ArrayBuffer> {
    this.#next(Math.ceil(this.#length / multiple) * multiple - this.#length);
    return this.#bytes.slice(0, this.#length);
  }

  #list<Value>(type: number, values: ArrayLike<Value>, write: (value: Value) => void): void {
    this.u32(TYPES.array);
    this.u32(type);
    this.u64(values.length);
    for (let i = 0; i < values.length; i++) write(values[i] as Value);
  }

  /** Where the next so many bytes go. It may move all bytes: views are taken after it. */
  #next(length: number): number {
    const at = this.#length;
    this.#length += length;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.#length));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }
}
