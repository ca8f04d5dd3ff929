import { FormatError } from "../errors.js";
import { messageOf } from "./json.js";

/** What a file is to hold; chunks are written as they come. */
export type FileContent = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** What stands between a name and the process's id while something is being written. */
const PARTIAL = ".partial-";

/**
 * Writes a file beside its place and renames it, so that a full disk or a crash leaves nothing half-written and an
 * older file unharmed. A device or a pipe is written directly. Node only.
 * Throws FormatError naming the file where the system refuses; what `content` throws is passed on.
 */
export async function replaceFile(path: string, content: FileContent): Promise<void> {
  const fs = await import("node:fs/promises");
  const { dirname } = await import("node:path");
  const found = await describeTarget(path);
  if (found === "folder") throw new FormatError(path, "cannot be written: it is a folder");
  // Renaming onto /dev/stdout or a named pipe would replace the device by a plain file.
  if (found === "device") return writeTo(path, path, content, false);

  const partial = `${path}${PARTIAL}${process.pid}`;
  try {
    await writeTo(partial, path, content, true);
    await attempt(path, () => fs.rename(partial, path));
    await syncFolder(dirname(path));
  } catch (error) {
    await fs.rm(partial, { force: true }).catch(() => {});
    throw error;
  }
}

/**
 * Writes a folder: all files first, into a folder beside its place, then one rename. Where the folder exists
 * already its files of these names are replaced by renames once all are written, and the others stay. Node only.
 * Throws FormatError naming the file where the system refuses; what a content throws is passed on.
 */
export async function writeFolder(path: string, files: ReadonlyMap<string, FileContent>): Promise<void> {
  const fs = await import("node:fs/promises");
  const { dirname, join, resolve } = await import("node:path");
  const target = resolve(path);
  const found = await describeTarget(target);
  if (found === "file" || found === "device")
    throw new FormatError(path, "cannot be written: it is not a folder");

  const exists = found === "folder";
  if (exists) await expectReplaceable(path, files.keys());
  // Inside an existing folder, which may be a mount point: renames do not cross file systems.
  const partial = exists ? join(target, `${PARTIAL}${process.pid}`) : `${target}${PARTIAL}${process.pid}`;
  try {
    await attempt(path, async () => {
      await fs.mkdir(dirname(partial), { recursive: true });
      await fs.rm(partial, { recursive: true, force: true });
      await fs.mkdir(partial);
    });
    for (const [name, content] of files) await writeTo(join(partial, name), join(path, name), content, true);
    await syncFolder(partial);
    if (exists) {
      for (const name of files.keys()) {
        await attempt(join(path, name), () => fs.rename(join(partial, name), join(target, name)));
      }
      await fs.rmdir(partial);
      await syncFolder(target);
    } else {
      await attempt(path, () => fs.rename(partial, target));
      await syncFolder(dirname(target));
    }
  } catch (error) {
    await fs.rm(partial, { recursive: true, force: true }).catch(() => {});
    throw error;
  }
}

/** Makes a folder and all above it. Node only. Throws FormatError naming it where the system refuses. */
export async function makeFolder(path: string): Promise<void> {
  const { mkdir } = await import("node:fs/promises");
  await attempt(path, () => mkdir(path, { recursive: true }));
}

/** Whether the path is that of a file. Node only. Throws FormatError where the system does not tell. */
export async function isFile(path: string): Promise<boolean> {
  return (await describeTarget(path)) === "file";
}

/**
 * Removes files of these names from a folder, and what was written of them when a crash came; then the folder, if it
 * is empty. What is not there is no error. Node only.
 */
export async function removeFiles(folder: string, names: readonly string[]): Promise<void> {
  const { readdir, rmdir } = await import("node:fs/promises");
  if ((await describeTarget(folder)) !== "folder") return;
  const isOne = (found: string) =>
    names.some((name) => found === name || found.startsWith(`${name}${PARTIAL}`));
  await removeWhere(folder, isOne);
  await attempt(folder, async () => {
    if ((await readdir(folder)).length === 0) await rmdir(folder);
  });
}

/** Removes what was written of a file, or folder, when a crash came. Node only. */
export async function removeUnfinished(folder: string, name: string): Promise<void> {
  if ((await describeTarget(folder)) !== "folder") return;
  await removeWhere(folder, (found) => found.startsWith(`${name}${PARTIAL}`));
}

async function removeWhere(folder: string, isOne: (name: string) => boolean): Promise<void> {
  const { readdir, rm } = await import("node:fs/promises");
  const { join } = await import("node:path");
  await attempt(folder, async () => {
    for (const name of (await readdir(folder)).filter(isOne))
      await rm(join(folder, name), { recursive: true, force: true });
  });
}

/** Throws before anything is written where one of the names is a folder: renames would fail halfway. */
async function expectReplaceable(folder: string, names: Iterable<string>): Promise<void> {
  const { join } = await import("node:path");
  for (const name of names) {
    const path = join(folder, name);
    if ((await describeTarget(path)) === "folder") {
      throw new FormatError(path, "cannot be written: it is a folder");
    }
  }
}

/** What stands at a path. Node only. Throws FormatError where the system does not tell. */
export async function describeTarget(path: string): Promise<"nothing" | "file" | "folder" | "device"> {
  const { stat } = await import("node:fs/promises");
  try {
    const info = await stat(path);
    return info.isDirectory() ? "folder" : info.isFile() ? "file" : "device";
  } catch (error) {
    if (codeOf(error) === "ENOENT") return "nothing";
    throw writeError(path, error);
  }
}

/** Writes all of `content` to `path`; errors name `shown`. */
async function writeTo(path: string, shown: string, content: FileContent, sync: boolean): Promise<void> {
  const { open } = await import("node:fs/promises");
  const handle = await attempt(shown, () => open(path, "w"));
  try {
    for await (const chunk of chunksOf(content)) {
      for (let done = 0; done < chunk.byteLength; ) {
        const { bytesWritten } = await attempt(shown, () =>
          handle.write(chunk, done, chunk.byteLength - done),
        );
        done += bytesWritten;
      }
    }
    // A rename may reach the disk before the data that it points to.
    if (sync) await attempt(shown, () => handle.sync());
  } finally {
    await handle.close();
  }
}

/** Brings renames in a folder to the disk. Not every system can open a folder; those do without. */
async function syncFolder(path: string): Promise<void> {
  const { open } = await import("node:fs/promises");
  const handle = await open(path, "r").catch(() => undefined);
  try {
    await handle?.sync().catch(() => {});
  } finally {
    await handle?.close();
  }
}

function chunksOf(content: FileContent): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (typeof content === "string") return [new TextEncoder().encode(content)];
  return content instanceof Uint8Array ? [content] : content;
}

async function attempt<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw writeError(path, error);
  }
}

/** What the system says about a path that it does not write, as a FormatError; any other error as it is. */
export function writeError(path: string, error: unknown): unknown {
  const code = codeOf(error);
  if (code === undefined) return error;
  // Node's message ends in ", write" or ", open '…'": the path that the user knows is in ours already.
  const reason = messageOf(error).replace(/, \w+( '.*)?$/, "");
  return new FormatError(path, `cannot be written: ${reason}`, { cause: error });
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
