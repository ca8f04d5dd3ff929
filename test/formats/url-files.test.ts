import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { createBackend } from "../../src/backends/create.js";
import { FormatError } from "../../src/errors.js";
import { byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { type FilesInput, openFiles } from "../../src/formats/files.js";
import { huggingFaceFiles } from "../../src/formats/hf-write.js";
import { loadModel } from "../../src/formats/load-model.js";
import type { DownloadProgress } from "../../src/formats/url-files.js";
import { writeFolder } from "../../src/formats/write.js";
import { logitsOf } from "../model/tiny.js";
import { readerOf, rejection, someWeights, temporaryFolder, tinyMistral } from "./helpers.js";
import { type ModelServer, modelServer } from "./model-server.js";

const config = { ...tinyMistral, vocabSize: 260 };

/** A model's files in memory, in shards where that is said. */
async function modelFiles(): Promise<Record<string, Uint8Array>> {
  const folder = join(await temporaryFolder(), "m");
  await writeFolder(folder, huggingFaceFiles(config, readerOf(someWeights(config)), byteTokenizerFiles()));
  const names = await readdir(folder);
  const entries = await Promise.all(
    names.map(async (name) => [name, new Uint8Array(await readFile(join(folder, name)))] as const),
  );
  return Object.fromEntries(entries);
}

let server: ModelServer;
let files: Record<string, Uint8Array>;
beforeEach(async () => {
  files = await modelFiles();
  server = await modelServer(files);
  onTestFinished(() => server.close());
});

async function logitsFrom(input: FilesInput): Promise<Float32Array> {
  const backend = await createBackend({ kind: "wasm", deterministic: true });
  try {
    return await logitsOf(await loadModel(input, { backend }), [3, 1, 4]);
  } finally {
    backend.dispose();
  }
}

describe("a model behind a URL", () => {
  it("is that of its files, however they are named and served", async () => {
    const expected = await logitsFrom(files);
    const { url } = server;
    const names = Object.keys(files);
    expect(await logitsFrom(url)).toEqual(expected);
    expect(await logitsFrom(names.map((name) => `${url}${name}`))).toEqual(expected);
    expect(await logitsFrom({ url: url.slice(0, -1), files: names })).toEqual(expected);
    server.ranges = false;
    server.etag = null;
    server.compressed = true;
    expect(await logitsFrom(url)).toEqual(expected);
  });

  it("is fetched in parts: no byte of the weights twice, and no more than they are", async () => {
    const loaded: DownloadProgress[] = [];
    const opened = await openFiles(server.url, { onDownload: (progress) => loaded.push({ ...progress }) });
    server.requests.length = 0;
    const source = await opened.open("model.safetensors");
    expect([...(await source.read(3, 5))]).toEqual([...(files["model.safetensors"]?.subarray(3, 8) ?? [])]);
    expect(server.requests).toEqual(["model.safetensors bytes=0-0", "model.safetensors bytes=3-7"]);
    const total = files["model.safetensors"]?.length;
    expect(loaded.at(-1)).toEqual({ url: `${server.url}model.safetensors`, loaded: 5, total });
    expect((await rejection(source.read(1e9, 1))).message).toContain("ends at byte");
  });

  it("may lie behind a query, and have its shards named by an index", async () => {
    const { "model.safetensors": weights, ...rest } = files;
    const shard = "model-00001-of-00001.safetensors";
    const tensors = Object.keys(JSON.parse(headerOf(weights as Uint8Array)));
    const map = Object.fromEntries(
      tensors.filter((name) => name !== "__metadata__").map((name) => [name, shard]),
    );
    const index = new TextEncoder().encode(JSON.stringify({ weight_map: map }));
    server.files.clear();
    for (const [name, file] of Object.entries(rest)) server.files.set(name, file);
    server.files.set("model.safetensors.index.json", index).set(shard, weights as Uint8Array);
    expect(await logitsFrom(server.url)).toEqual(await logitsFrom(files));
    const opened = await openFiles(`${server.url}?v=2`);
    expect(opened.describe("config.json")).toBe(`${server.url}config.json?v=2`);
    expect(await opened.text("config.json")).toContain("mistral");
    expect((await openFiles(`${server.url}config.json?v=2`)).main).toBe("config.json");
  });
});

function headerOf(file: Uint8Array): string {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  return new TextDecoder().decode(file.subarray(8, 8 + length));
}

describe("what goes wrong", () => {
  const open = async (name = "model.safetensors") => (await openFiles([`${server.url}${name}`])).open(name);

  it("is told with the URL", async () => {
    const messages: [FilesInput, RegExp][] = [
      [`${server.url}none/`, /none\/: has none of the files of a model/],
      [[`${server.url}none.gguf`], /none\.gguf: no such file or folder/],
      [[`${server.url}a/x.json`, `${server.url}b/x.json`], /b\/x.json: has the name of another file, x.json/],
      [[server.url], /is not the URL of a file/],
    ];
    for (const [input, message] of messages) {
      const error = await rejection(openFiles(input).then((opened) => opened.open(opened.main ?? "")));
      expect(error).toBeInstanceOf(FormatError);
      expect(error.message).toMatch(message);
    }
    server.status = 503;
    expect((await rejection(open())).message).toMatch(
      /model\.safetensors: cannot be fetched: the server answers 503/,
    );
    server.status = null;
    await server.close();
    const gone = await rejection(open());
    expect(gone).toBeInstanceOf(FormatError);
    expect(gone.message).toMatch(/^http.*cannot be fetched: /);
  });

  it("is a connection that breaks, and a file that changes", async () => {
    const source = await open();
    server.breakAfter = 10;
    const broken = await rejection(source.read(0, 100));
    expect(broken).toBeInstanceOf(FormatError);
    expect(broken.message).toMatch(/broke off/);
    server.etag = '"2"';
    expect((await rejection(source.read(0, 100))).message).toMatch(/changed while it was read/);
  });

  it("ends with the signal's reason where the caller aborts", async () => {
    const controller = new AbortController();
    const opened = await openFiles(server.url, { signal: controller.signal });
    const source = await opened.open("model.safetensors");
    controller.abort(new Error("enough"));
    expect((await rejection(source.read(0, 9))).message).toBe("enough");
    expect((await rejection(openFiles(server.url, { signal: controller.signal }))).message).toBe("enough");
  });
});
