import { FormatError } from "../errors.js";
import type { ByteSource } from "./source.js";

/** What is read at once, where no single value asks for more, in bytes. */
const PIECE = 1 << 16;
const MOST_AT_ONCE = 1 << 22;

/**
 * The most that a header may take, in bytes: far above any (a vocabulary of 262,144 tokens with its merges has about
 * 20 MB), and what a lying length can make us read of a large file.
 */
const MAX_HEADER = 1 << 28;

/**
 * The fields of a GGUF header one after the other, little-endian, read in pieces that grow. Every getter throws
 * FormatError naming the file and `what` where the file, or the limit of a header, ends before the field.
 */
export class GgufHeaderReader {
  #piece = new Uint8Array();
  #view = new DataView(this.#piece.buffer);
  /** Of the piece in the file, and of the next field in the piece. */
  #start = 0;
  #next = 0;
  #atOnce = PIECE;
  readonly #end: number;
  /** A byte-order mark stays: it is a token of some vocabularies. */
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  constructor(readonly source: ByteSource) {
    this.#end = Math.min(source.size, MAX_HEADER);
  }

  /** Of the next field in the file. */
  get position(): number {
    return this.#start + this.#next;
  }

  fail(problem: string): never {
    throw new FormatError(this.source.name, problem);
  }

  async u32(what: string): Promise<number> {
    const at = await this.#take(4, what);
    return this.#view.getUint32(at, true);
  }

  /** Throws beyond 2^53, as no size in a file is. */
  async u64(what: string): Promise<number> {
    const at = await this.#take(8, what);
    const value = this.#view.getUint32(at, true) + 2 ** 32 * this.#view.getUint32(at + 4, true);
    return Number.isSafeInteger(value) ? value : this.fail(`${what}: ${value} is beyond any file`);
  }

  /** A u64 that counts things of at least `bytes` each, all of them yet to come. */
  async count(bytes: number, what: string): Promise<number> {
    const at = await this.#take(8, what);
    const value = this.#view.getUint32(at, true) + 2 ** 32 * this.#view.getUint32(at + 4, true);
    const left = this.#end - this.position;
    return value * bytes <= left ? value : this.fail(`${what} is ${value}, but only ${left} bytes are left`);
  }

  /** A string of at most `most` bytes, its length before it. Throws where it is not UTF-8. */
  async string(most: number, what: string): Promise<string> {
    const length = await this.count(1, `the length of ${what}`);
    if (length > most) this.fail(`${what} has ${length} bytes, over the limit of ${most}`);
    const at = await this.#take(length, what);
    try {
      return this.#decoder.decode(this.#piece.subarray(at, at + length));
    } catch (cause) {
      throw new FormatError(this.source.name, `${what} is not UTF-8 text`, { cause });
    }
  }

  async ascii(length: number, what: string): Promise<string> {
    const at = await this.#take(length, what);
    return String.fromCharCode(...this.#piece.subarray(at, at + length));
  }

  /** A copy, at offset 0 of a buffer of its own. */
  async bytes(length: number, what: string): Promise<Uint8Array<ArrayBuffer>> {
    const at = await this.#take(length, what);
    return this.#piece.slice(at, at + length);
  }

  /** Where in the piece the next so many bytes are, after which the field behind them is next. */
  #take(length: number, what: string): number | Promise<number> {
    if (this.#next + length > this.#piece.length) return this.#fill(length, what);
    this.#next += length;
    return this.#next - length;
  }

  /** A new piece, from the next field on. */
  async #fill(length: number, what: string): Promise<number> {
    const { position } = this;
    const left = this.#end - position;
    if (length > left) {
      const why =
        this.#end < this.source.size ? `the limit of a header, ${MAX_HEADER}` : "the end of the file";
      this.fail(`${what} needs ${length} bytes, but ${why} is ${left} bytes away`);
    }
    this.#piece = await this.source.read(position, Math.min(left, Math.max(length, this.#atOnce)));
    this.#view = new DataView(this.#piece.buffer);
    this.#start = position;
    this.#next = length;
    this.#atOnce = Math.min(2 * this.#atOnce, MOST_AT_ONCE);
    return 0;
  }
}
