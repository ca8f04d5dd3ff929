/**
 * Microbenchmarks of the ops: the cases of `test/ops` that say what they count.
 *
 *   node bench/run.mjs bench/ops.ts [--backend wasm|webgpu] [--wasm auto|baseline|relaxed] [--no-revectorize]
 *     [--op NAME] [--time MS] [--json]
 */

import { parseArgs } from "node:util";
import { Bench } from "tinybench";
import type { Backend } from "../src/backend.js";
import { type BackendOptions, createBackend } from "../src/backends/create.js";
import type { WeightType } from "../src/dtype.js";
import { Tape } from "../src/tape.js";
import { Arena, Tensor } from "../src/tensor.js";
import { type BenchInfo, type OpCase, Random, upload } from "../test/ops/case.js";
import { cases } from "../test/ops/cases.js";

/** A measurement, as `oriflamme bench --json` prints it. */
interface Line {
  readonly bench: string;
  readonly who: "oriflamme";
  readonly variant: Backend["variant"];
  readonly backend: "wasm" | "webgpu";
  readonly threads: number;
  readonly dtype: WeightType;
  readonly shape: readonly number[];
  readonly median_seconds: number;
  readonly rate: number;
  readonly unit: "GFLOP/s" | "GB/s";
}

const { values: options } = parseArgs({
  allowNegative: true,
  options: {
    backend: { type: "string", default: "wasm" },
    wasm: { type: "string", default: "auto" },
    revectorize: { type: "boolean", default: true },
    op: { type: "string" },
    time: { type: "string", default: "300" },
    json: { type: "boolean", default: false },
  },
});

/** One, so that a rate is a kernel's and not that of sharing it. */
const THREADS = 1;

/** The operands of a case on the backend, for the whole measurement. */
function uploadAll(tape: Tape, opCase: OpCase, random: Random): Record<string, Tensor> {
  const entries = Object.entries(opCase.inputs(random)).map(([name, input]) => {
    const tensor = upload(tape, input);
    if (input.requiresGrad) tensor.grad = tape.filled(input.value.shape, 0);
    return [name, tensor] as const;
  });
  return Object.fromEntries(entries);
}

/** One pass over the case, backward too where `recording`; leaves the arena as it found it. */
function pass(arena: Arena, opCase: OpCase, operands: Record<string, Tensor>, recording: boolean): void {
  const mark = arena.mark();
  const tape = new Tape(arena, recording);
  const result = opCase.run(tape, operands);
  if (recording) {
    for (const out of result instanceof Tensor ? [result] : Object.values(result)) tape.grad(out);
    tape.backward();
  }
  arena.release(mark);
}

async function measure(backend: Backend, name: string, opCase: OpCase, info: BenchInfo): Promise<Line[]> {
  const arena = new Arena(backend);
  const operands = uploadAll(new Tape(arena), opCase, new Random(opCase.name));
  const time = Number(options.time);
  const bench = new Bench({ time, warmupTime: Math.min(time, 100) });
  const timed = (recording: boolean) => async () => {
    pass(arena, opCase, operands, recording);
    await backend.synchronize();
  };
  bench.add(name, timed(false));
  if (info.backward) bench.add(`${name}_backward`, timed(true));
  await bench.run();
  arena.dispose();

  const work = (info.flops ?? info.bytes ?? 0) * 1e-9;
  return bench.tasks.map((task, i) => {
    if (!("latency" in task.result)) throw new Error(`${task.name}: ${task.result.state}`);
    const median_seconds = task.result.latency.p50 / 1e3;
    return {
      bench: task.name,
      who: "oriflamme",
      variant: backend.variant,
      backend: backend.kind,
      threads: THREADS,
      dtype: info.dtype ?? "f32",
      shape: info.shape,
      median_seconds,
      rate: (work * (i === 1 ? (info.backward ?? 1) : 1)) / median_seconds,
      unit: info.flops === undefined ? "GB/s" : "GFLOP/s",
    };
  });
}

function print(line: Line): void {
  if (options.json) {
    process.stdout.write(`${JSON.stringify(line)}\n`);
    return;
  }
  const { bench, dtype, shape, median_seconds, rate, unit } = line;
  const ms = `${(median_seconds * 1e3).toFixed(3)} ms`;
  process.stdout.write(
    `${`${bench}${dtype === "f32" ? "" : ` ${dtype}`}`.padEnd(32)}${shape.join("×").padEnd(24)}${ms.padStart(12)}${rate.toFixed(2).padStart(10)} ${unit}\n`,
  );
}

const backend = await createBackend({
  kind: options.backend,
  wasm: options.wasm,
  revectorize: options.revectorize,
  threads: THREADS,
} as BackendOptions);
process.stderr.write(`${backend.description}\n`);
for (const [name, list] of Object.entries(cases)) {
  if (options.op !== undefined && options.op !== name) continue;
  for (const opCase of list) {
    if (opCase.bench) for (const line of await measure(backend, name, opCase, opCase.bench)) print(line);
  }
}
backend.dispose();
