import { FormatError } from "../errors.js";

/** Bytes that are read where they are asked for: a file, a blob, or an array in memory. */
export interface ByteSource {
  /** The path, or the best description, for messages. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /**
   * A fresh array at offset 0 of a buffer of its own, so that typed arrays may view it.
   * Throws FormatError where the range leaves the source.
   */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Fills `into`, which may lie in shared memory, from `offset` on. Throws as `read`. */
  readInto(offset: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** A folder of files, or a set that a page was given. */
export interface ModelFiles {
  /** The folder's path, or a description, for messages. */
  readonly name: string;
  /** The file that was asked for where a single one was, else null. */
  readonly main: string | null;
  /** The names of all files, sorted. */
  readonly names: readonly string[];
  /** How a file of that name is called in messages. */
  describe(name: string): string;
  has(name: string): boolean;
  /** Throws FormatError where there is no such file. */
  open(name: string): Promise<ByteSource>;
  /** The whole file as UTF-8 text. Throws FormatError where it is missing or not UTF-8. */
  text(name: string): Promise<string>;
}

/** Throws FormatError unless the range lies inside the source. */
export function expectRange(source: { name: string; size: number }, offset: number, length: number): void {
  if (!(offset >= 0 && length >= 0 && offset + length <= source.size)) {
    throw new FormatError(
      source.name,
      `ends at byte ${source.size}, but bytes ${offset} to ${offset + length} are needed`,
    );
  }
}

/** A source over an array in memory. */
export function bytesSource(name: string, bytes: Uint8Array): ByteSource {
  const size = bytes.byteLength;
  return {
    name,
    size,
    async read(offset, length) {
      expectRange({ name, size }, offset, length);
      return new Uint8Array(bytes.subarray(offset, offset + length));
    },
    async readInto(offset, into) {
      expectRange({ name, size }, offset, into.length);
      into.set(bytes.subarray(offset, offset + into.length));
    },
    async close() {},
  };
}

/** A source over a browser's blob or file; only the range that is asked for is read. */
export function blobSource(name: string, blob: Blob): ByteSource {
  const size = blob.size;
  const read = async (offset: number, length: number) => {
    expectRange({ name, size }, offset, length);
    return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
  };
  return {
    name,
    size,
    read,
    async readInto(offset, into) {
      into.set(await read(offset, into.length));
    },
    async close() {},
  };
}

/** The whole source. */
export async function readAll(source: ByteSource): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}
