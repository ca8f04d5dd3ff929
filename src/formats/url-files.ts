/** Models behind a URL. Imported only where one is given. */
import { FormatError } from "../errors.js";
import { bodyOf, ConnectionError, fetchFile, type Served, servedBy } from "./http.js";
import { decodeUtf8, isObject, parseObject } from "./json.js";
import { CachedFile, storeError, withLock } from "./model-cache.js";
import { type ByteSource, blobSource, bytesSource, expectRange, type ModelFiles, readAll } from "./source.js";

/** A folder behind a URL, and which files it has. */
export interface RemoteFiles {
  readonly url: string;
  readonly files: readonly string[];
}

/** How far the download of a file is. */
export interface DownloadProgress {
  readonly url: string;
  /** In bytes, those included that were there from an earlier call. */
  readonly loaded: number;
  /** Null where the server does not say. */
  readonly total: number | null;
}

/** How files are fetched. */
export interface FetchOptions {
  /** Ends it, with the signal's reason. What a page has downloaded so far is kept. */
  readonly signal?: AbortSignal;
  /** Called as bytes come in. */
  readonly onDownload?: (progress: DownloadProgress) => void;
  /**
   * Whether a page keeps files in its own store (OPFS), where the next call finds them, or goes on with them; true
   * by default. Elsewhere nothing is kept: parts are fetched as they are read where the server has them.
   */
  readonly cache?: boolean;
}

/** What the files of a model folder, or of an adapter, may be called: a server lists none. */
const KNOWN = [
  ...["config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"],
  ...["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json"],
  ...["adapter_config.json", "adapter_model.safetensors", "oriflamme.json"],
];
const INDEX = "model.safetensors.index.json";

/** Small files, which servers may send compressed: fetched as a whole. */
const TEXT = /\.(json|jsonl|jinja|txt)$/i;

/**
 * The files behind a URL: that of a file, of a folder (it ends in `/`), of several files, or of a folder whose files
 * are named.
 * @throws FormatError where a URL is none, nothing is there, or the server does not answer
 */
export async function filesOfUrl(
  input: string | readonly string[] | RemoteFiles,
  options: FetchOptions,
): Promise<ModelFiles> {
  if (typeof input === "string") {
    const isFolder = URL.canParse(input) && new URL(input).pathname.endsWith("/");
    return isFolder ? filesOfFolder(input, options) : filesOfFile(input, options);
  }
  const urls = new Map<string, string>();
  const add = (name: string, url: string) => {
    if (urls.has(name)) throw new FormatError(url, `has the name of another file, ${name}`);
    urls.set(name, url);
  };
  if ("files" in input) for (const name of input.files) add(name, urlIn(folderOf(input), name));
  else for (const url of input) add(nameOf(url), url);
  const [only = null] = urls.keys();
  const name = "files" in input ? input.url : [...urls.values()].join(", ");
  return makeFiles(name, urls.size === 1 ? only : null, urls, options);
}

async function filesOfFile(url: string, options: FetchOptions): Promise<ModelFiles> {
  const name = nameOf(url);
  const urls = new Map([[name, url]]);
  // A model of llama2.c has its tokenizer beside it.
  if (/\.bin$/i.test(name)) {
    const tokenizer = urlIn(url, "tokenizer.bin");
    if ((await isServed(tokenizer, options)) === true) urls.set("tokenizer.bin", tokenizer);
  }
  return makeFiles(url, name, urls, options);
}

async function filesOfFolder(folder: string, options: FetchOptions): Promise<ModelFiles> {
  const found = await Promise.all(KNOWN.map((name) => isServed(urlIn(folder, name), options)));
  const names = KNOWN.filter((_, i) => found[i] === true);
  if (names.length === 0) {
    throw (
      found.find((item) => item instanceof Error) ??
      new FormatError(folder, "has none of the files of a model")
    );
  }
  const urls = new Map(names.map((name) => [name, urlIn(folder, name)]));
  const files = makeFiles(folder, null, urls, options);
  if (!urls.has(INDEX) || urls.has("model.safetensors")) return files;
  const { weight_map: map } = parseObject(await files.text(INDEX), files.describe(INDEX));
  // Whoever reads the index says what is wrong with it.
  const shards = isObject(map) ? new Set(Object.values(map).filter((name) => typeof name === "string")) : [];
  for (const shard of shards) urls.set(shard, urlIn(folder, shard));
  return makeFiles(folder, null, urls, options);
}

/**
 * Whether a file is there: on the server, or where that is not reached, whole in the page's store. The error where
 * neither tells.
 */
async function isServed(url: string, options: FetchOptions): Promise<boolean | ConnectionError> {
  try {
    const response = await fetchFile(url, { first: 0, last: 0, signal: options.signal });
    await response?.body?.cancel();
    return response !== undefined;
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    const cached = options.cache === false ? undefined : await CachedFile.open(url);
    return cached?.facts?.isWhole ? true : error;
  }
}

function makeFiles(
  name: string,
  main: string | null,
  urls: ReadonlyMap<string, string>,
  options: FetchOptions,
): ModelFiles {
  const urlOf = (file: string) => {
    const url = urls.get(file);
    if (url === undefined) throw new FormatError(`${name} (${file})`, "no such file or folder");
    return url;
  };
  const open = async (file: string) => openUrl(urlOf(file), options);
  return {
    name,
    main,
    names: [...urls.keys()].sort(),
    describe: (file) => urls.get(file) ?? file,
    has: (file) => urls.has(file),
    open,
    async text(file) {
      return decodeUtf8(await readAll(await open(file)), urlOf(file));
    },
  };
}

/** Opens a file: from the page's store, part by part from the server, or from memory. */
async function openUrl(url: string, options: FetchOptions): Promise<ByteSource> {
  if (options.cache !== false) {
    const cached = await CachedFile.open(url);
    if (cached) {
      return withLock(url, async () => {
        // Another window may have brought it while this one waited.
        const file = (await CachedFile.open(url)) ?? cached;
        await download(url, file, options).catch((error: unknown) => {
          throw storeError(url, error);
        });
        return blobSource(url, file.content);
      });
    }
  }
  const { signal } = options;
  const isText = TEXT.test(nameOf(url));
  const response = await fetchFile(url, isText ? { signal } : { first: 0, last: 0, signal });
  if (!response) throw new FormatError(url, "no such file or folder");
  const served = servedBy(response);
  if (response.status === 206 && served.size !== null) {
    await response.body?.cancel();
    return rangeSource(url, served.size, served.tag, options);
  }
  return bytesSource(url, await inMemory(response, url, served, options));
}

/**
 * Brings a file into the page's store, behind what is there of it. What is there whole stays where the server says
 * that it has the same, or is not reached.
 */
async function download(url: string, file: CachedFile, options: FetchOptions): Promise<void> {
  const { signal, onDownload } = options;
  const known = file.facts;
  const isText = TEXT.test(nameOf(url));
  let response: Response | undefined;
  try {
    // One byte of what is there whole, to see whether it has changed, else the rest.
    const range = known?.isWhole ? { first: 0, last: 0 } : { first: file.size };
    response = await fetchFile(url, { ...(!isText && range), signal });
  } catch (error) {
    if (error instanceof ConnectionError && known?.isWhole) return;
    throw error;
  }
  if (!response) throw new FormatError(url, "no such file or folder");
  const served = servedBy(response);
  // A large file of the same size is taken for the same where the server says no more; a small one is fetched again.
  const isTold = served.tag !== null || !isText;
  const isSame = isTold && known?.tag === served.tag && (served.size ?? known.size) === known.size;
  if (known?.isWhole && isSame) {
    await response.body?.cancel();
    onDownload?.({ url, loaded: file.size, total: file.size });
    return;
  }
  const continues = response.status === 206 && isSame && !known?.isWhole;
  if (!continues) {
    // Part of another version, or the end of it: the whole is needed.
    if (response.status === 206 && (file.size > 0 || known?.isWhole)) {
      await response.body?.cancel();
      response = await fetchFile(url, { signal });
      if (!response) throw new FormatError(url, "no such file or folder");
    }
    await file.restart({ url, ...served, isWhole: false });
  }
  await file.append(bodyOf(response, url, signal), (loaded) =>
    onDownload?.({ url, loaded, total: served.size }),
  );
  if (served.size !== null && file.size !== served.size) {
    throw new ConnectionError(url, `broke off after ${file.size} of ${served.size} bytes`);
  }
  await file.complete();
}

/** A file whose parts are fetched when they are read. */
function rangeSource(url: string, size: number, tag: string | null, options: FetchOptions): ByteSource {
  const { signal, onDownload } = options;
  let loaded = 0;
  const readInto = async (offset: number, into: Uint8Array) => {
    expectRange({ name: url, size }, offset, into.length);
    if (into.length === 0) return;
    const response = await fetchFile(url, { first: offset, last: offset + into.length - 1, signal });
    const served = response && servedBy(response);
    if (response?.status !== 206 || served?.tag !== tag || served.size !== size) {
      await response?.body?.cancel();
      throw new FormatError(url, "changed while it was read");
    }
    let at = 0;
    for await (const chunk of bodyOf(response, url, signal)) {
      if (at + chunk.length > into.length) throw new FormatError(url, "answers with more than was asked for");
      into.set(chunk, at);
      at += chunk.length;
      loaded += chunk.length;
      onDownload?.({ url, loaded, total: size });
    }
    if (at !== into.length) throw new ConnectionError(url, `broke off after ${at} of ${into.length} bytes`);
  };
  return {
    name: url,
    size,
    readInto,
    async read(offset, length) {
      expectRange({ name: url, size }, offset, length);
      const bytes = new Uint8Array(length);
      await readInto(offset, bytes);
      return bytes;
    },
    async close() {},
  };
}

async function inMemory(
  response: Response,
  url: string,
  { size }: Served,
  { signal, onDownload }: FetchOptions,
): Promise<Uint8Array> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let loaded = 0;
  for await (const chunk of bodyOf(response, url, signal)) {
    chunks.push(chunk);
    loaded += chunk.length;
    onDownload?.({ url, loaded, total: size });
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

function urlIn(base: string, name: string): string {
  const url = new URL(name, base);
  // What lets a reader in, a signature or a version, is often in the query.
  if (url.search === "") url.search = new URL(base).search;
  return url.href;
}

/** The folder's URL with the slash at its end, without which its last name would be a file's. */
function folderOf({ url: text }: RemoteFiles): string {
  if (!URL.canParse(text)) throw new FormatError(text, "is no URL");
  const url = new URL(text);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url.href;
}

/** The name of the file that a URL leads to. Throws FormatError for what is no URL. */
function nameOf(url: string): string {
  const name = URL.canParse(url) ? decodeURIComponent(new URL(url).pathname.split("/").at(-1) ?? "") : "";
  if (name === "") throw new FormatError(url, "is not the URL of a file");
  return name;
}
