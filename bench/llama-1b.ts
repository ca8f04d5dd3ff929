/**
 * Prefill and decode rates of a Llama of the shape of Llama 3.2 1B with random weights, next to llama.cpp on the same
 * GGUF file, in processes of their own that take turns:
 *
 *   node bench/run.mjs bench/llama-1b.ts [--dtype q8_0 …] [--threads N] [--prompt N] [--tokens N] [--rounds N] [--json]
 *
 * Rates are of the median round. The competitor comes from bench/peers (its README says how to install it).
 */

import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { createBackend } from "../src/backends/create.js";
import { llamaConfig, matrixWeights, someVocabulary } from "../src/cli/bench/llama.js";
import { bytesOf, type WeightType } from "../src/dtype.js";
import { writeGguf } from "../src/formats/gguf-write.js";
import { loadModel } from "../src/formats/load-model.js";
import { decode } from "../src/generate/decode.js";
import { GREEDY } from "../src/generate/sample.js";
import { type ModelConfig, weightShapes } from "../src/model/config.js";
import type { StoredWeight } from "../src/model/stored-weight.js";
import { Random } from "../src/random.js";

/** dim, layers, heads, kv heads, ffn, vocabulary; tied. */
const SHAPE = [2048, 16, 32, 8, 8192, 128256] as const;
const ENGINES = ["oriflamme, portable", "oriflamme, revectorized", "llama.cpp"] as const;
type Engine = (typeof ENGINES)[number];

/** What a run is told. */
interface RunSettings {
  readonly prompt: number;
  readonly tokens: number;
  readonly threads: number;
}

/** What it says: seconds of each token, the first of which comes with the prompt. */
interface Run {
  readonly description: string;
  readonly times: readonly number[];
}

const { values: options } = parseArgs({
  options: {
    dtype: { type: "string", multiple: true, default: ["q8_0", "q4_0"] },
    threads: { type: "string", default: "1" },
    prompt: { type: "string", default: "256" },
    tokens: { type: "string", default: "32" },
    rounds: { type: "string", default: "3" },
    json: { type: "boolean", default: false },
    // One run of our own, in a process of its own.
    run: { type: "string" },
    revectorize: { type: "boolean", default: false },
  },
});
const settings: RunSettings = {
  prompt: count("prompt"),
  tokens: count("tokens"),
  threads: count("threads"),
};

function count(name: "prompt" | "tokens" | "threads" | "rounds"): number {
  const value = Number(options[name]);
  if (!Number.isInteger(value) || value < 1) throw new RangeError(`--${name} must be an integer from 1`);
  return value;
}

/** A weight of random blocks whose scales are 2^-9: values are about as wide as those of a trained model. */
function randomWeight(shape: readonly number[], dtype: "q8_0" | "q4_0", random: Random): StoredWeight {
  const blockBytes = bytesOf(dtype, [32]);
  const scale = dtype === "q8_0" ? 0x0c00 : 0x2000;
  return {
    shape,
    dtype,
    rowsTogether: 1,
    async read(_first, _rows, into) {
      const words = new Uint32Array(into.buffer, into.byteOffset, Math.floor(into.length / 4));
      for (let i = 0; i < words.length; i++) words[i] = random.uint32();
      for (let at = 0; at < into.length; at += blockBytes) {
        into[at] = scale & 0xff;
        into[at + 1] = scale >> 8;
      }
    },
  };
}

function ones(shape: readonly number[]): StoredWeight {
  const read = async (_first: number, _rows: number, into: Uint8Array) => {
    new Float32Array(into.buffer, into.byteOffset, into.length / 4).fill(1);
  };
  return { shape, dtype: "f32", rowsTogether: 1, read };
}

async function writeModel(path: string, config: ModelConfig, dtype: "q8_0" | "q4_0"): Promise<void> {
  const random = new Random(1);
  const shapes = weightShapes(config);
  const weight = (name: string) => {
    const shape = shapes.get(name) ?? [];
    return shape.length === 1 ? ones(shape) : randomWeight(shape, dtype, random);
  };
  await writeGguf(
    path,
    { config, weight },
    {
      ...{ type: dtype, outputType: dtype, vocabulary: someVocabulary(config.vocabSize) },
    },
  );
}

/** Our own run: prints what a `Run` has. */
async function runOwn(path: string, revectorize: boolean): Promise<void> {
  const { prompt, tokens, threads } = settings;
  const backend = await createBackend({ kind: "wasm", threads, revectorize });
  const model = await loadModel(path, { backend });
  const ids = Array.from({ length: prompt }, (_, i) => i + 1);
  const decoding = (length: number, maxTokens: number) =>
    decode(model, ids.slice(0, length), { sampling: GREEDY, random: new Random(0), maxTokens, eosIds: [] });
  for await (const _ of decoding(Math.min(64, prompt), 4));
  const times: number[] = [];
  let last = performance.now();
  for await (const step of decoding(prompt, tokens + 1)) {
    const now = performance.now();
    if (step.kind === "token") times.push((now - last) / 1000);
    last = now;
  }
  console.log(JSON.stringify({ description: backend.description, times } satisfies Run));
  backend.dispose();
}

async function runEngine(engine: Engine, path: string): Promise<Run> {
  const { prompt, tokens, threads } = settings;
  const args =
    engine === "llama.cpp"
      ? ["bench/peers/llama-rates.mjs", path, JSON.stringify(settings)]
      : [
          ...["bench/run.mjs", "bench/llama-1b.ts", "--run", path],
          ...["--prompt", `${prompt}`, "--tokens", `${tokens}`, "--threads", `${threads}`],
          ...(engine === "oriflamme, revectorized" ? ["--revectorize"] : []),
        ];
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 1 << 24 });
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}

async function compare(dtype: "q8_0" | "q4_0"): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "oriflamme-bench-"));
  try {
    const path = join(folder, "model.gguf");
    await writeModel(path, llamaConfig(SHAPE, settings.prompt + settings.tokens + 8), dtype);
    const rates = new Map<Engine, { prefill: number[]; decode: number[]; description: string }>();
    for (let round = 0; round < count("rounds"); round++) {
      for (const engine of round % 2 === 0 ? ENGINES : ENGINES.toReversed()) {
        const { times, description } = await runEngine(engine, path);
        const [first = Number.NaN, ...rest] = times;
        const found = rates.get(engine) ?? { prefill: [], decode: [], description };
        found.prefill.push(settings.prompt / first);
        found.decode.push(1 / median(rest));
        rates.set(engine, found);
      }
    }
    print(dtype, rates);
  } finally {
    await rm(folder, { recursive: true });
  }
}

function print(
  dtype: WeightType,
  rates: ReadonlyMap<Engine, { prefill: number[]; decode: number[]; description: string }>,
): void {
  const theirs = rates.get("llama.cpp");
  for (const [engine, { prefill, decode, description }] of rates) {
    const [p, d] = [median(prefill), median(decode)];
    if (options.json) {
      const row = { engine, description, dtype, ...settings, prefill: p, decode: d, unit: "tokens/s" };
      console.log(JSON.stringify(row));
      continue;
    }
    const ratio = (own: number, other: readonly number[] = []) => (own / median(other)).toFixed(2);
    console.log(
      `${dtype} ${engine.padEnd(24)} prefill ${p.toFixed(1).padStart(7)} tokens/s (${ratio(p, theirs?.prefill)} of llama.cpp)` +
        `  decode ${d.toFixed(2).padStart(6)} tokens/s (${ratio(d, theirs?.decode)})`,
    );
  }
}

if (options.run !== undefined) {
  await runOwn(options.run, options.revectorize);
} else {
  const { threads, prompt, tokens } = settings;
  const weights = (matrixWeights(SHAPE) / 1e9).toFixed(2);
  if (!options.json)
    console.log(`${weights} billion weights, ${threads} threads, ${prompt} tokens in, ${tokens} out`);
  for (const dtype of options.dtype) {
    if (dtype !== "q8_0" && dtype !== "q4_0")
      throw new RangeError(`--dtype must be q8_0 or q4_0, got '${dtype}'`);
    await compare(dtype);
  }
}
