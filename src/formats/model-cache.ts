/** A page's own store of downloaded files: the Origin Private File System (https://fs.spec.whatwg.org). */
import { FormatError } from "../errors.js";
import { isObject, messageOf } from "./json.js";

/** The folder of the page's file system that all is kept in. */
const FOLDER = "oriflamme-models";
const FACTS = "facts.json";
/**
 * A file is kept in parts of this size, in bytes: a part is there once it is whole, so a download goes on after the
 * last one. Writing at the end of one large file would copy all of it each time.
 */
const PART_BYTES = 32 << 20;

/** What is known of a file's download. */
export interface CachedFacts {
  readonly url: string;
  /** In bytes; null until the download is over where the server has not said. */
  readonly size: number | null;
  readonly tag: string | null;
  readonly isWhole: boolean;
}

/** A file in the cache, in parts. */
export class CachedFile {
  #parts: File[];
  /** Null for one of which nothing is there. */
  facts: CachedFacts | null;

  private constructor(
    readonly folder: FileSystemDirectoryHandle,
    parts: File[],
    facts: CachedFacts | null,
  ) {
    this.#parts = parts;
    this.facts = facts;
  }

  /** The place of a URL's file; undefined where the page has no file system of its own. */
  static async open(url: string): Promise<CachedFile | undefined> {
    const root = await rootFolder();
    if (!root) return undefined;
    const folder = await root.getDirectoryHandle(await nameOf(url), { create: true });
    const facts = await readFacts(folder);
    const parts: File[] = [];
    for (;;) {
      const part = await fileOf(folder, partName(parts.length));
      if (!part || part.size === 0) break;
      parts.push(part);
      if (part.size < PART_BYTES) break;
    }
    return new CachedFile(folder, facts ? parts : [], facts);
  }

  /** Bytes that are there. */
  get size(): number {
    return this.#parts.reduce((sum, part) => sum + part.size, 0);
  }

  /** What is there, read from the disk when it is asked for. */
  get content(): Blob {
    return new Blob(this.#parts);
  }

  /** Begins anew for a file of which these things are known. */
  async restart(facts: CachedFacts): Promise<void> {
    this.facts = facts;
    this.#parts = [];
    const names: string[] = [];
    for await (const name of this.folder.keys()) names.push(name);
    for (const name of names) await this.folder.removeEntry(name);
    await this.#writeFacts();
  }

  /**
   * Appends what comes, part by part, behind what is there.
   * @param onChunk called with the bytes that are there or under way
   */
  async append(
    chunks: AsyncIterable<Uint8Array<ArrayBuffer>>,
    onChunk: (size: number) => void,
  ): Promise<void> {
    let part: { stream: FileSystemWritableFileStream; size: number; name: string } | undefined;
    const finish = async () => {
      if (!part) return;
      await part.stream.close();
      this.#parts.push(await (await this.folder.getFileHandle(part.name)).getFile());
      part = undefined;
    };
    try {
      for await (const chunk of chunks) {
        for (let from = 0; from < chunk.length; ) {
          part ??= await this.#newPart();
          const piece = chunk.subarray(from, from + PART_BYTES - part.size);
          await part.stream.write(piece);
          part.size += piece.length;
          from += piece.length;
          onChunk(this.size + part.size);
          if (part.size === PART_BYTES) await finish();
        }
      }
      await finish();
    } catch (error) {
      await part?.stream.abort().catch(() => {});
      throw error;
    }
  }

  async #newPart() {
    const name = partName(this.#parts.length);
    const handle = await this.folder.getFileHandle(name, { create: true });
    return { stream: await handle.createWritable(), size: 0, name };
  }

  /** Notes that all is there. */
  async complete(): Promise<void> {
    if (this.facts) this.facts = { ...this.facts, size: this.size, isWhole: true };
    await this.#writeFacts();
  }

  async #writeFacts(): Promise<void> {
    const stream = await (await this.folder.getFileHandle(FACTS, { create: true })).createWritable();
    await stream.write(JSON.stringify(this.facts));
    await stream.close();
  }
}

/** Removes the file of one URL, or all. */
export async function clear(url?: string): Promise<void> {
  const root = await rootFolder();
  if (!root) return;
  const names: string[] = [];
  for await (const name of root.keys()) names.push(name);
  const wanted = url === undefined ? undefined : await nameOf(url);
  for (const name of names) {
    if (wanted === undefined || name === wanted) await root.removeEntry(name, { recursive: true });
  }
}

/** One download of a URL at a time, in all of the page's windows, where the browser has locks. */
export async function withLock<T>(url: string, work: () => Promise<T>): Promise<T> {
  const { locks } = navigator;
  return locks ? locks.request(`${FOLDER}/${url}`, work) : work();
}

/** What the browser says of a store that takes no more, as a FormatError naming the file; any other error as it is. */
export function storeError(url: string, error: unknown): unknown {
  if (!(error instanceof DOMException) || error.name === "AbortError") return error;
  return new FormatError(
    url,
    `cannot be kept in the page's store: ${messageOf(error)}; load it with cache: false`,
    {
      cause: error,
    },
  );
}

async function rootFolder(): Promise<FileSystemDirectoryHandle | undefined> {
  const isThere =
    typeof navigator === "object" &&
    typeof navigator.storage?.getDirectory === "function" &&
    typeof FileSystemFileHandle === "function" &&
    "createWritable" in FileSystemFileHandle.prototype;
  if (!isThere) return undefined;
  const system = await navigator.storage.getDirectory();
  return system.getDirectoryHandle(FOLDER, { create: true });
}

/** The folder of a URL: names of the file system have no slashes. */
async function nameOf(url: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function partName(index: number): string {
  return `part-${String(index).padStart(5, "0")}`;
}

async function fileOf(folder: FileSystemDirectoryHandle, name: string): Promise<File | undefined> {
  try {
    return await (await folder.getFileHandle(name)).getFile();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}

async function readFacts(folder: FileSystemDirectoryHandle): Promise<CachedFacts | null> {
  const file = await fileOf(folder, FACTS);
  try {
    const value: unknown = JSON.parse((await file?.text()) ?? "null");
    return isObject(value) ? (value as unknown as CachedFacts) : null;
  } catch {
    // A page that was closed while it wrote them: as if nothing were there.
    return null;
  }
}
