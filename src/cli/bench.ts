import { type Command, InvalidArgumentError } from "commander";
import { Bench } from "tinybench";
import type { Backend } from "../backend.js";
import { WEIGHT_TYPES, type WeightType } from "../dtype.js";
import { decode } from "../generate/decode.js";
import { GREEDY } from "../generate/sample.js";
import type { ModelConfig } from "../model/config.js";
import { initialise } from "../model/init.js";
import { attention } from "../ops/attention.js";
import { matmul } from "../ops/matmul.js";
import { Random } from "../random.js";
import { Tape } from "../tape.js";
import { Arena } from "../tensor.js";
import { languageLoss } from "../train/language.js";
import { train } from "../train/trainer.js";
import { backendFor, type GlobalOptions, integer } from "./options.js";
import { jsonLine, table } from "./terminal.js";

/** One measurement, as the contract of the command line has it. */
interface Measurement {
  readonly bench: string;
  readonly who: "oriflamme";
  readonly variant: "portable" | "revectorized";
  readonly backend: string;
  readonly threads: number;
  readonly dtype: WeightType;
  readonly shape: readonly number[];
  readonly median_seconds: number;
  readonly rate: number;
  readonly unit: "GFLOP/s" | "tokens/s";
}

/** Where a measurement is taken. */
interface Place {
  readonly backend: Backend;
  readonly threads: number;
  /** Least milliseconds that a measurement runs. */
  readonly time: number;
}

interface BenchOptions extends GlobalOptions {
  readonly time: number;
}

const SUITES: Readonly<Record<string, (place: Place) => AsyncGenerator<Measurement>>> = {
  matmul: benchMatmul,
  attention: benchAttention,
  train: benchTrain,
  decode: benchDecode,
};

/** `bench`: how fast the engine is on this machine. */
export function benchCommand(root: Command): Command {
  return root
    .command("bench")
    .description("measure the engine on this machine, on one thread unless --threads says more")
    .argument("[suites...]", `of ${Object.keys(SUITES).join(", ")} (default: all)`, parseSuite)
    .option("--time <ms>", "least time a measurement runs", integer(1), 500)
    .action(run);
}

function parseSuite(name: string, before: string[] = []): string[] {
  if (!Object.hasOwn(SUITES, name))
    throw new InvalidArgumentError(`There are ${Object.keys(SUITES).join(", ")}.`);
  return [...before, name];
}

async function run(given: string[], options: BenchOptions): Promise<void> {
  const names = given.length > 0 ? given : Object.keys(SUITES);
  const threads = options.threads ?? 1;
  const backend = await backendFor({ ...options, threads });
  try {
    const rows: Measurement[] = [];
    for (const name of names) {
      for await (const row of (SUITES[name] as (typeof SUITES)[string])({
        backend,
        threads,
        time: options.time,
      })) {
        rows.push(row);
        if (options.json) jsonLine(row);
      }
    }
    if (options.json) return;
    const cells = rows.map((row) => [
      `${row.bench} ${row.shape.join("×")}${row.dtype === "f32" ? "" : ` ${row.dtype}`}`,
      `${(row.median_seconds * 1000).toPrecision(3)} ms`,
      `${row.rate.toPrecision(4)} ${row.unit}`,
    ]);
    process.stdout.write(`${backend.description}\n${table([["bench", "median", "rate"], ...cells])}\n`);
  } finally {
    backend.dispose();
  }
}

/** Median seconds of `work`, which dispatches; a read of the last result ends each turn. */
async function medianSeconds({ backend, time }: Place, work: () => void): Promise<number> {
  const bench = new Bench({ time, warmupTime: 100, warmupIterations: 3, iterations: 5 });
  bench.add("work", async () => {
    work();
    await backend.synchronize();
  });
  const [task] = await bench.run();
  const result = task?.result;
  if (result?.state !== "completed") throw new Error(`bench: the measurement ended as ${result?.state}`);
  return result.latency.p50 / 1000;
}

function measurement(
  { backend, threads }: Place,
  bench: string,
  shape: readonly number[],
  seconds: number,
  work: number,
  unit: Measurement["unit"],
  dtype: WeightType = "f32",
): Measurement {
  return {
    bench,
    who: "oriflamme",
    variant: backend.variant,
    backend: backend.kind,
    threads,
    dtype,
    shape,
    median_seconds: seconds,
    rate: unit === "GFLOP/s" ? work / seconds / 1e9 : work / seconds,
    unit,
  };
}

function noise(length: number): Float32Array {
  const random = new Random(length);
  return Float32Array.from({ length }, () => random.uniform() - 0.5);
}

async function* benchMatmul(place: Place): AsyncGenerator<Measurement> {
  for (const n of [192, 384, 768, 1536]) {
    const arena = new Arena(place.backend);
    const inputs = new Tape(arena, false);
    const [a, b] = [inputs.from(noise(n * n), [n, n]), inputs.from(noise(n * n), [n, n])];
    const mark = arena.mark();
    const seconds = await medianSeconds(place, () => {
      arena.release(mark);
      matmul(new Tape(arena, false), a, b);
    });
    arena.dispose();
    yield measurement(place, "matmul", [n, n, n], seconds, 2 * n ** 3, "GFLOP/s");
  }
}

/** Forward, and forward with backward, at batch 1 and 8 heads of 64. FLOPs of the causal half only. */
async function* benchAttention(place: Place): AsyncGenerator<Measurement> {
  const [heads, headDim] = [8, 64];
  for (const length of [256, 1024]) {
    for (const backward of [false, true]) {
      const arena = new Arena(place.backend);
      const inputs = new Tape(arena, false);
      const shape = [1, length, heads, headDim];
      const size = length * heads * headDim;
      const qkv = Array.from({ length: 3 }, () => inputs.from(noise(size), shape));
      const seed = inputs.from(noise(size), shape);
      for (const x of qkv) {
        x.requiresGrad = backward;
        if (backward) x.grad = inputs.filled(shape, 0);
      }
      const [q, k, v] = qkv as [(typeof qkv)[0], (typeof qkv)[0], (typeof qkv)[0]];
      const mark = arena.mark();
      const seconds = await medianSeconds(place, () => {
        arena.release(mark);
        const tape = new Tape(arena, backward);
        const out = attention(tape, q, k, v);
        if (!backward) return;
        out.grad = seed;
        tape.backward();
      });
      arena.dispose();
      // Two products forward, five more backward, each over half of the length².
      const products = backward ? 7 : 2;
      const name = backward ? "attention+backward" : "attention";
      const work = products * length * length * heads * headDim;
      yield measurement(place, name, [1, length, heads, headDim], seconds, work, "GFLOP/s");
    }
  }
}

/** The three models of the published comparison: dim, layers, heads, kv heads, ffn, vocabulary, batch. */
const TRAIN_MODELS = [
  [64, 5, 8, 4, 172, 512, 8],
  [288, 6, 6, 6, 768, 4096, 4],
  [512, 8, 8, 8, 1376, 8192, 4],
] as const;

function llama(shape: readonly number[], contextLength: number): ModelConfig {
  const [hiddenSize = 0, layers = 0, heads = 1, kvHeads = 1, intermediateSize = 0, vocabSize = 0] = shape;
  return {
    architecture: "llama",
    ...{ hiddenSize, layers, heads, kvHeads, intermediateSize, vocabSize, contextLength },
    headDim: hiddenSize / heads,
    norm: "rmsnorm",
    normEps: 1e-5,
    position: { kind: "rope", theta: 10000, scaling: { kind: "none" } },
    mlp: "swiglu",
    bias: { qkv: false, output: false, mlp: false },
    fusedQkv: false,
    window: null,
    tied: true,
    bosId: null,
    eosIds: [],
  };
}

async function* benchTrain(place: Place): AsyncGenerator<Measurement> {
  const length = 256;
  for (const shape of TRAIN_MODELS) {
    const batch = shape[6];
    const model = initialise(place.backend, llama(shape, length), null, new Random(1));
    const random = new Random(2);
    const ids = Uint32Array.from({ length: batch * length }, () => random.below(shape[5]));
    const options = { steps: 1000, lr: 1e-4, warmup: 0, decay: "constant", accumulate: 1, clip: 1 } as const;
    const times: number[] = [];
    const deadline = performance.now() + 4 * place.time;
    for await (const { step, tokensPerSecond } of train(
      model.weights,
      languageLoss(model),
      () => ({ ids, batch }),
      options,
    )) {
      if (step > 2) times.push(ids.length / tokensPerSecond);
      if (times.length >= 3 && performance.now() > deadline) break;
    }
    model.dispose();
    yield measurement(place, "train", [...shape, length], median(times), ids.length, "tokens/s");
  }
}

/** Greedy decoding of the 15M shape: dim 288, 6 layers, 6 heads, ffn 768, vocabulary 32000; all weight types. */
async function* benchDecode(place: Place): AsyncGenerator<Measurement> {
  const shape = [288, 6, 6, 6, 768, 32000];
  const [prompt, tokens] = [16, 200];
  for (const dtype of WEIGHT_TYPES) {
    const model = initialise(place.backend, llama(shape, 512), null, new Random(1), dtype);
    const times: number[] = [];
    const options = { sampling: GREEDY, random: new Random(0), maxTokens: tokens + 1, eosIds: [] };
    let last = performance.now();
    for await (const step of decode(
      model,
      Array.from({ length: prompt }, (_, i) => i + 1),
      options,
    )) {
      const now = performance.now();
      if (step.kind === "token") times.push((now - last) / 1000);
      last = now;
    }
    model.dispose();
    const seconds = median(times.slice(1));
    yield measurement(place, "decode", [...shape, prompt, tokens], seconds, 1, "tokens/s", dtype);
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}
