/** Files of Node, Bun and Deno. Imported only where a path is given, so that pages never load it. */
import type { FileHandle } from "node:fs/promises";
import { open, readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FormatError } from "../errors.js";
import { messageOf } from "./json.js";
import { type ByteSource, expectRange } from "./source.js";

/** What `read(2)` takes at once on every system that Node runs on. */
const MAX_READ = 1 << 30;

/** What a path names: a folder and the files in it, or one file and its neighbours. */
export interface PathListing {
  readonly folder: string;
  readonly main: string | null;
  readonly names: string[];
}

/** Lists a folder, or the folder of a file. Throws FormatError where nothing has that path. */
export async function listPath(path: string): Promise<PathListing> {
  try {
    const isFolder = (await stat(path)).isDirectory();
    const folder = isFolder ? path : dirname(path);
    const entries = await readdir(folder, { withFileTypes: true });
    const names = entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
    return { folder, main: isFolder ? null : basename(path), names };
  } catch (error) {
    throw readError(path, error);
  }
}

/** Opens a file for reading. Throws FormatError where it is missing, a folder, or may not be read. */
export async function fileSource(path: string): Promise<ByteSource> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, "r");
    const info = await handle.stat();
    if (info.isDirectory()) throw new FormatError(path, "is a folder, expected a file");
    return new HandleSource(path, info.size, handle);
  } catch (error) {
    await handle?.close();
    throw readError(path, error);
  }
}

class HandleSource implements ByteSource {
  constructor(
    readonly name: string,
    readonly size: number,
    readonly handle: FileHandle,
  ) {}

  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    expectRange(this, offset, length);
    const bytes = new Uint8Array(length);
    await this.readInto(offset, bytes);
    return bytes;
  }

  async readInto(offset: number, into: Uint8Array): Promise<void> {
    const { length } = into;
    expectRange(this, offset, length);
    for (let done = 0; done < length; ) {
      const count = Math.min(length - done, MAX_READ);
      const { bytesRead } = await this.handle
        .read(into, done, count, offset + done)
        .catch((error: unknown) => {
          throw readError(this.name, error);
        });
      if (bytesRead === 0) throw new FormatError(this.name, "became shorter while it was read");
      done += bytesRead;
    }
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** The path of a file in a folder. */
export function inFolder(folder: string, name: string): string {
  return join(folder, name);
}

function readError(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || !("code" in error)) return error;
  if (error.code === "ENOENT") return new FormatError(path, "no such file or folder", { cause: error });
  return new FormatError(path, `cannot be read: ${messageOf(error)}`, { cause: error });
}
