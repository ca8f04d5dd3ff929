// How fast the built package loads a model, against a plain read of the same file into memory that is as fresh, in
// processes of their own that alternate; and the most memory that either held. The file is in the page cache.
//
//   node bench/load.mjs [--gigabytes N] [--dtype f32|f16|bf16] [--runs N] [--threads N] [--json]

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { open, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const FILE = "model.safetensors";
/** Bytes of a plain read's piece: the speed is that of 1, 64 and 1000 MiB. */
const PIECE = 4 << 20;

/** The config.json of a Llama of about that many weights. */
function configOf(weights) {
  const [dim, ffn, vocab] = [2048, 5504, 32000];
  return {
    model_type: "llama",
    ...{ hidden_size: dim, intermediate_size: ffn, vocab_size: vocab, max_position_embeddings: 512 },
    num_hidden_layers: Math.max(1, Math.round((weights - vocab * dim) / (4 * dim * dim + 3 * dim * ffn))),
    ...{ num_attention_heads: 16, num_key_value_heads: 16, rms_norm_eps: 1e-5, hidden_act: "silu" },
    ...{ rope_theta: 10000, tie_word_embeddings: true },
  };
}

/** Names and shapes of its weights. */
function weightsOf({
  hidden_size: dim,
  intermediate_size: ffn,
  vocab_size: vocab,
  num_hidden_layers: layers,
}) {
  const layer = {
    ...{ input_layernorm: [dim], post_attention_layernorm: [dim] },
    ...Object.fromEntries(["q", "k", "v", "o"].map((part) => [`self_attn.${part}_proj`, [dim, dim]])),
    ...{ "mlp.gate_proj": [ffn, dim], "mlp.up_proj": [ffn, dim], "mlp.down_proj": [dim, ffn] },
  };
  const blocks = Array.from({ length: layers }, (_, i) =>
    Object.entries(layer).map(([name, shape]) => [`model.layers.${i}.${name}.weight`, shape]),
  );
  return [["model.embed_tokens.weight", [vocab, dim]], ...blocks.flat(), ["model.norm.weight", [dim]]];
}

/** Writes the model's folder, its weights random and small; the bytes of its file. */
async function writeModel(folder, gigabytes, dtype) {
  const width = dtype === "f32" ? 4 : 2;
  const config = configOf((gigabytes * 1e9) / width);
  const header = {};
  let end = 0;
  for (const [name, shape] of weightsOf(config)) {
    const begin = end;
    end += width * shape.reduce((product, dim) => product * dim, 1);
    header[name] = { dtype: dtype.toUpperCase(), shape, data_offsets: [begin, end] };
  }
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  const file = await open(join(folder, FILE), "w");
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  await file.write(Buffer.concat([length, json]));
  // Any bits with an exponent that is not all ones.
  const words = Uint32Array.from({ length: PIECE / 4 }, (_, i) => Math.imul(i + 1, 0x9e3779b9) & 0xbbffbbff);
  for (let done = 0; done < end; done += PIECE) await file.write(words, 0, Math.min(PIECE, end - done));
  await file.close();
  return 8 + json.length + end;
}

/** In the child: seconds, and the most bytes that the process held more than before. */
async function measure(what, folder, threads) {
  const path = join(folder, FILE);
  const { createBackend, loadModel } = await import("../dist/index.js");
  const backend = await createBackend({ kind: "wasm", threads });
  const before = process.resourceUsage().maxRSS;
  const start = performance.now();
  if (what === "load") await loadModel(folder, { backend });
  else await plainRead(path, threads > 1);
  const seconds = (performance.now() - start) / 1000;
  const peak = process.resourceUsage().maxRSS;
  backend.dispose();
  return { seconds, peakBytes: peak * 1024, addedBytes: (peak - before) * 1024 };
}

/** Reads the file into the memory of a wasm module that nothing has touched. */
async function plainRead(path, shared) {
  const file = await open(path);
  const { size } = await file.stat();
  const pages = Math.ceil(size / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared });
  const bytes = new Uint8Array(memory.buffer);
  for (let at = 0; at < size; at += PIECE) await file.read(bytes, at, Math.min(PIECE, size - at), at);
  await file.close();
}

function run(what, folder, threads) {
  const args = [fileURLToPath(import.meta.url), "--child", what, "--folder", folder, "--threads", threads];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`a run ended with ${status}: ${stderr}`);
  return JSON.parse(stdout);
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

async function compare({ gigabytes, dtype, runs, threads, json }) {
  const folder = mkdtempSync(join(tmpdir(), "oriflamme-load-"));
  try {
    const bytes = await writeModel(folder, Number(gigabytes), dtype);
    const found = { plain: [], load: [] };
    for (let i = 0; i < Number(runs); i++) {
      for (const what of ["plain", "load"]) found[what].push(run(what, folder, threads));
    }
    const seconds = (what) => median(found[what].map((one) => one.seconds));
    const line = {
      bench: "load",
      dtype,
      bytes,
      threads: Number(threads),
      plain_rate: bytes / 1e9 / seconds("plain"),
      load_rate: bytes / 1e9 / seconds("load"),
      unit: "GB/s",
      // Of neighbours in time: what else the machine does slows both.
      ratio: median(found.load.map(({ seconds }, i) => found.plain[i].seconds / seconds)),
      peak_per_file: median(found.load.map(({ peakBytes }) => peakBytes)) / bytes,
      plain_peak_per_file: median(found.plain.map(({ peakBytes }) => peakBytes)) / bytes,
    };
    if (json) console.log(JSON.stringify(line));
    else {
      console.log(
        `${dtype}, ${(bytes / 1e9).toFixed(2)} GB, threads ${threads}: plain ${line.plain_rate.toFixed(2)} GB/s, ` +
          `load ${line.load_rate.toFixed(2)} GB/s, ${line.ratio.toFixed(3)} of it; peak RSS ` +
          `${line.peak_per_file.toFixed(3)} of the file (plain: ${line.plain_peak_per_file.toFixed(3)})`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const { values } = parseArgs({
  options: {
    gigabytes: { type: "string", default: "1" },
    dtype: { type: "string", default: "bf16" },
    runs: { type: "string", default: "7" },
    threads: { type: "string", default: "2" },
    json: { type: "boolean", default: false },
    child: { type: "string" },
    folder: { type: "string" },
  },
});
if (values.child === undefined) await compare(values);
else console.log(JSON.stringify(await measure(values.child, values.folder, Number(values.threads))));
