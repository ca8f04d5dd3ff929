// The contender "limit": `limit.mjs '{"threads": 1, "variant": "portable"}'`. Each thread has a module and a memory
// of its own.

import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { serve, timed } from "../../dist/cli/bench/kit.js";

/** Where the numbers of a loop lie; what `read` reads begins behind them. */
const NUMBERS = 1024;
const PAGE = 65536;

/** Words of the block that threads share: the number of the job, how many still run, and what the job is. */
const JOB = 0;
const RUNNING = 1;
const BENCH = 2;
const AMOUNT = 3;
const WORDS = 4;
const BENCHES = ["peak", "bandwidth"];

if (isMainThread) await serve(start);
else follow(workerData);

async function start() {
  const { threads, variant } = JSON.parse(process.argv[2] ?? '{"threads":1,"variant":"portable"}');
  const isPaired = variant === "revectorized";
  if (isPaired) setFlagsFromString("--experimental-wasm-revectorize");
  const module = await WebAssembly.compile(await build());
  const control = new Int32Array(new SharedArrayBuffer(4 * WORDS));
  const workers = Array.from({ length: threads - 1 }, () => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { module, isPaired, control } });
    worker.unref();
    return worker;
  });
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once("message", resolve))));
  const own = await loops(module, isPaired);
  return {
    description: `${threads} ${threads === 1 ? "thread" : "threads"}`,
    variant,
    async prepare({ bench, shape }) {
      const pass = () => {
        control[BENCH] = BENCHES.indexOf(bench);
        control[AMOUNT] = shape[0];
        Atomics.store(control, RUNNING, workers.length);
        Atomics.add(control, JOB, 1);
        Atomics.notify(control, JOB);
        own(bench, shape[0]);
        while (Atomics.load(control, RUNNING) > 0);
      };
      return { sample: async () => [], measure: timed(async () => pass()), dispose() {} };
    },
  };
}

/** A worker: the same loop whenever the main thread begins one. */
async function follow({ module, isPaired, control }) {
  const { parentPort } = await import("node:worker_threads");
  const run = await loops(module, isPaired);
  let job = Atomics.load(control, JOB);
  parentPort.postMessage("ready");
  for (;;) {
    Atomics.wait(control, JOB, job);
    job = Atomics.load(control, JOB);
    run(BENCHES[control[BENCH]], control[AMOUNT]);
    Atomics.sub(control, RUNNING, 1);
  }
}

/** Runs a loop on this thread: `peak` of so many steps, `bandwidth` of so many bytes. */
async function loops(module, isPaired) {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
  // Small enough that the accumulators stay finite, large enough that nothing is subnormal.
  new Float32Array(memory.buffer, 0, NUMBERS / 4).fill(1e-3);
  const peak = isPaired ? exports.peak_paired : exports.peak;
  return (bench, amount) => {
    // With pairs a step has twice the accumulators.
    if (bench === "peak") return peak(0, isPaired ? amount / 2 : amount);
    const missing = Math.ceil((NUMBERS + amount) / PAGE) - memory.buffer.byteLength / PAGE;
    if (missing > 0) {
      memory.grow(missing);
      // Pages that were never written are all the same one.
      new Uint8Array(memory.buffer).fill(1);
    }
    exports.read(0, NUMBERS, amount);
  };
}

/** `limit.ts` as WebAssembly, in memory. */
async function build() {
  const { default: asc } = await import("assemblyscript/asc");
  const flags = [
    "--enable",
    "simd",
    "--enable",
    "relaxed-simd",
    "--runtime",
    "stub",
    "--importMemory",
    "-O3",
  ];
  const { error, stderr, binary } = await compile(asc, flags);
  if (error) throw new Error(`limit.ts: ${stderr.toString()}`);
  return binary;
}

async function compile(asc, flags) {
  let binary;
  const baseDir = fileURLToPath(new URL(".", import.meta.url));
  const result = await asc.main(["limit.ts", ...flags, "--baseDir", baseDir, "-o", "limit.wasm"], {
    writeFile(name, content) {
      if (name.endsWith(".wasm")) binary = content;
    },
  });
  return { ...result, binary };
}
