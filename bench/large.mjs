// A model that no single wasm memory holds: how fast it loads against a plain read of the same file, in processes of
// their own, how fast it decodes, and how much memory the process holds at most and once all was disposed of.
//
//   node bench/large.mjs [--layers N] [--tokens N] [--threads 1,2] [--file F.gguf] [--json]
//
// It writes the model, a Llama of random q8_0 blocks (28 layers are 6.6 GB), to the system's folder for temporary
// files, and removes it; with --file it keeps it there, and takes one that is there already.

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** dim, layers, heads, kv heads, ffn, vocabulary. */
const shapeOf = (layers) => [4096, layers, 32, 8, 14336, 32000];
const CONTEXT = 512;
/** Bytes of a block of q8_0, and the f16 scale of all of them: 2^-12. */
const [BLOCK, SCALE] = [34, 0x0c00];
/** Blocks that are drawn; weights are windows into them. */
const BLOCKS = 1 << 20;
const PROMPT = [1, 2, 3, 4];

/** Where the weights come from: matrices random, norms 1. */
async function randomLlama(layers) {
  const { llamaConfig, weightShapes } = await import("../dist/cli/bench/kit.js");
  const blocks = new Uint8Array(BLOCKS * BLOCK);
  for (let i = 0; i < blocks.length; i++) blocks[i] = Math.imul(i + 1, 0x9e3779b1) >>> 24;
  for (let i = 0; i < blocks.length; i += BLOCK) {
    blocks[i] = SCALE & 0xff;
    blocks[i + 1] = SCALE >> 8;
  }
  const config = llamaConfig(shapeOf(layers), CONTEXT);
  const shapes = weightShapes(config);
  let place = 0;
  const weight = (name) => {
    const shape = shapes.get(name);
    if (shape.length === 1) {
      const read = async (_first, _rows, into) =>
        into.set(new Uint8Array(new Float32Array(shape[0]).fill(1).buffer));
      return { shape, dtype: "f32", rowsTogether: shape[0], read };
    }
    const read = async (_first, _rows, into) => {
      for (let done = 0; done < into.length; ) {
        // From another block on each time.
        const from = ((place++ * 7919) % BLOCKS) * BLOCK;
        const part = blocks.subarray(from, from + into.length - done);
        into.set(part, done);
        done += part.length;
      }
    };
    return { shape, dtype: "q8_0", rowsTogether: 1, read };
  };
  return { config, weight };
}

/** In the child: reads the file into fresh memories of wasm modules, as many as it needs. */
async function plain(path, threads) {
  const file = await open(path);
  const { size } = await file.stat();
  const [whole, piece] = [3 * 2 ** 30, 2 ** 20];
  const start = performance.now();
  for (let from = 0; from < size; from += whole) {
    const pages = Math.ceil(Math.min(whole, size - from) / 65536);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: threads > 1 });
    const bytes = new Uint8Array(memory.buffer);
    const end = Math.min(size, from + whole);
    for (let at = from; at < end; at += piece)
      await file.read(bytes, at - from, Math.min(piece, end - at), at);
  }
  const seconds = (performance.now() - start) / 1000;
  await file.close();
  return { seconds, bytes: size, peakBytes: peakBytes() };
}

/** In the child: loads, decodes, and lets all of it go. */
async function large(path, threads, tokens) {
  const { createBackend, loadModel } = await import("../dist/index.js");
  const backend = await createBackend({ kind: "wasm", threads });
  const start = performance.now();
  const model = await loadModel(path, { backend });
  const seconds = (performance.now() - start) / 1000;
  const loadPeakBytes = peakBytes();
  const memories = model.stretches.length;
  const { ids, rate } = await decoded(model, tokens);
  const { reserved } = backend.memory();
  model.dispose();
  backend.dispose();
  // The workers end, and let their share of the memories go, in turns of their own.
  for (let turn = 0; turn < 20; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    globalThis.gc();
  }
  const afterBytes = process.memoryUsage().rss;
  return { seconds, memories, ids, rate, loadPeakBytes, peakBytes: peakBytes(), reserved, afterBytes };
}

/** Greedy tokens, and how many of them come a second after the first, which takes the prompt in. */
async function decoded(model, tokens) {
  const { decode, GREEDY, Random } = await import("../dist/index.js");
  const options = { sampling: GREEDY, random: new Random(0), maxTokens: tokens + 1, eosIds: [] };
  const ids = [];
  let start = 0;
  for await (const step of decode(model, PROMPT, options)) {
    if (step.kind !== "token") continue;
    if (ids.length === 0) start = performance.now();
    ids.push(step.id);
  }
  return { ids, rate: (1000 * tokens) / (performance.now() - start) };
}

function peakBytes() {
  return process.resourceUsage().maxRSS * 1024;
}

function run(what, path, threads, tokens) {
  const script = fileURLToPath(import.meta.url);
  const args = [
    "--expose-gc",
    script,
    "--child",
    what,
    "--file",
    path,
    "--threads",
    threads,
    "--tokens",
    tokens,
  ];
  const { status, stdout, stderr } = spawnSync(process.execPath, args.map(String), { encoding: "utf8" });
  if (status !== 0) throw new Error(`a run ended with ${status}: ${stderr}`);
  return JSON.parse(stdout);
}

async function compare({ layers, tokens, threads, file, json }) {
  const folder = file === undefined ? mkdtempSync(join(tmpdir(), "oriflamme-large-")) : undefined;
  const path = file ?? join(folder, "model.gguf");
  try {
    if (!existsSync(path)) {
      const { writeGguf } = await import("../dist/cli/bench/kit.js");
      await writeGguf(path, await randomLlama(Number(layers)), { type: "q8_0" });
    }
    // Brings the file into the page cache.
    run("plain", path, 2, tokens);
    for (const count of threads.split(",")) {
      const [read, load] = [run("plain", path, count, tokens), run("large", path, count, tokens)];
      const { bytes } = read;
      const line = {
        bench: "large",
        bytes,
        threads: Number(count),
        memories: load.memories,
        plain_rate: bytes / 1e9 / read.seconds,
        load_rate: bytes / 1e9 / load.seconds,
        unit: "GB/s",
        ratio: read.seconds / load.seconds,
        load_peak_per_file: load.loadPeakBytes / bytes,
        peak_per_file: load.peakBytes / bytes,
        tokens_per_second: load.rate,
        ids: load.ids,
        bytes_after: load.afterBytes,
      };
      if (json) console.log(JSON.stringify(line));
      else {
        console.log(
          `${(bytes / 1e9).toFixed(2)} GB in ${line.memories} memories, threads ${count}: ` +
            `plain ${line.plain_rate.toFixed(2)} GB/s, load ${line.load_rate.toFixed(2)} GB/s, ` +
            `${line.ratio.toFixed(3)} of it; peak RSS ${line.load_peak_per_file.toFixed(3)} of the file loaded, ` +
            `${line.peak_per_file.toFixed(3)} decoded; ${line.tokens_per_second.toFixed(2)} tokens/s ` +
            `(${line.ids.join(" ")}); RSS ${(line.bytes_after / 1e6).toFixed(0)} MB after dispose`,
        );
      }
    }
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true });
  }
}

const { values } = parseArgs({
  options: {
    layers: { type: "string", default: "28" },
    tokens: { type: "string", default: "4" },
    threads: { type: "string", default: "1,2" },
    file: { type: "string" },
    json: { type: "boolean", default: false },
    child: { type: "string" },
  },
});
const { child, file, threads, tokens } = values;
if (child === undefined) await compare(values);
else if (child === "plain") console.log(JSON.stringify(await plain(file, Number(threads))));
else console.log(JSON.stringify(await large(file, Number(threads), Number(tokens))));
