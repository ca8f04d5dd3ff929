import { FormatError } from "../errors.js";
import { decodeUtf8 } from "./json.js";
import { type ByteSource, blobSource, bytesSource, type ModelFiles, readAll } from "./source.js";
import type { FetchOptions, RemoteFiles } from "./url-files.js";

/**
 * Where a model comes from: a path, the URL of a file or of a folder (which ends in `/`), URLs of files, a folder's
 * URL with the names of its files, files by name, or what a page's file input holds.
 */
export type FilesInput =
  | string
  | readonly string[]
  | RemoteFiles
  | Readonly<Record<string, Blob | Uint8Array>>
  | ReadonlyMap<string, Blob | Uint8Array>
  | readonly File[]
  | FileList;

/**
 * The files of a folder, of the folder around a file, behind URLs, or of a set in memory.
 * Throws FormatError where a path or a URL names nothing, and where two files have one name.
 */
export async function openFiles(input: FilesInput, options: FetchOptions = {}): Promise<ModelFiles> {
  if (isRemote(input)) return (await import("./url-files.js")).filesOfUrl(input, options);
  return typeof input === "string" ? filesOfPath(input) : filesInMemory(input);
}

type Remote = string | readonly string[] | RemoteFiles;

function isRemote(input: FilesInput): input is Remote {
  if (typeof input === "string") return /^https?:\/\//i.test(input);
  if (Array.isArray(input)) return input.length > 0 && input.every((item) => typeof item === "string");
  return "url" in input && typeof input.url === "string";
}

async function filesOfPath(path: string): Promise<ModelFiles> {
  if (path === "") throw new FormatError("(empty path)", "no such file or folder");
  const { fileSource, inFolder, listPath } = await import("./node.js");
  const { folder, main, names } = await listPath(path);
  const describe = (name: string) => (name === main ? path : inFolder(folder, name));
  return makeFiles(path, main, names, describe, (name) => fileSource(describe(name)));
}

function filesInMemory(input: Exclude<FilesInput, Remote>): ModelFiles {
  const files = new Map<string, Blob | Uint8Array>();
  for (const [name, content] of entriesOf(input)) {
    if (files.has(name)) throw new FormatError(name, "was given twice");
    files.set(name, content);
  }
  const names = [...files.keys()];
  return makeFiles(
    "files in memory",
    names.length === 1 ? (names[0] ?? null) : null,
    names,
    String,
    async (name) => {
      const content = files.get(name);
      if (content instanceof Uint8Array) return bytesSource(name, content);
      if (content instanceof Blob) return blobSource(name, content);
      throw new FormatError(name, "must be a Blob or a Uint8Array");
    },
  );
}

function entriesOf(input: Exclude<FilesInput, Remote>): Iterable<[string, Blob | Uint8Array]> {
  if (input instanceof Map) return input;
  if (Symbol.iterator in input) return [...(input as Iterable<File>)].map((file) => [file.name, file]);
  return Object.entries(input as Record<string, Blob | Uint8Array>);
}

function makeFiles(
  name: string,
  main: string | null,
  names: readonly string[],
  describe: (name: string) => string,
  openFile: (name: string) => Promise<ByteSource>,
): ModelFiles {
  const known = new Set(names);
  const open = async (file: string) => {
    // Names come from files too (a shard index), and must not lead out of the folder.
    if (!known.has(file)) throw new FormatError(describe(file), "no such file or folder");
    return openFile(file);
  };
  return {
    name,
    main,
    names: [...names].sort(),
    describe,
    has: (file) => known.has(file),
    open,
    async text(file) {
      return decodeUtf8(await readAll(await open(file)), describe(file));
    },
  };
}
