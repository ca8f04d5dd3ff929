import { afterEach, describe, expect, it, vi } from "vitest";
import type { Backend } from "../../src/backend.js";
import { createBackend } from "../../src/backends/create.js";
import type { WasmBackend } from "../../src/backends/wasm/backend.js";
import { Threads } from "../../src/backends/wasm/threads.js";
import { BackendError } from "../../src/errors.js";
import { Adapter } from "../../src/model/adapter.js";
import { linearLayers, type ModelConfig, type PositionConfig } from "../../src/model/config.js";
import { forward, head } from "../../src/model/forward.js";
import { FullTuning } from "../../src/model/full-tuning.js";
import { headCrossEntropy } from "../../src/model/head-loss.js";
import { KVCache } from "../../src/model/kv-cache.js";
import type { Overlay } from "../../src/model/lora.js";
import { Model } from "../../src/model/model.js";
import { placeLayers } from "../../src/model/placement.js";
import { transfer } from "../../src/ops/transfer.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena, Parameters } from "../../src/tensor.js";
import { digestOfParameters } from "../../src/train/fingerprint.js";
import { AdamW } from "../../src/train/optimiser.js";
import type { Loss } from "../../src/train/trainer.js";
import { train } from "../../src/train/trainer.js";
import { deep, inThree } from "./three-memories.js";
import { gpt2, llama, logitsOf, loudModel, mistral, phi3, qwen3, randomIds } from "./tiny.js";

/** Frequencies that sequences of more than 8 positions have to themselves. */
const dynamic: PositionConfig = {
  kind: "rope",
  theta: 100,
  scaling: { kind: "dynamic", factor: 4, originalContextLength: 8 },
};

/** The least that a memory may be bounded by. */
const MEMORY_BYTES = 4 << 20;

const open: Backend[] = [];
afterEach(() => {
  for (const backend of open.splice(0)) backend.dispose();
});

async function create(threads: number, memoryBytes?: number): Promise<Backend> {
  const bound = memoryBytes === undefined ? {} : { memoryBytes };
  const backend = await createBackend({ kind: "wasm", wasm: "baseline", threads, ...bound });
  open.push(backend);
  return backend;
}

/** The same model in one memory and in several. */
async function twins(config: ModelConfig, threads: number): Promise<{ whole: Model; split: Model }> {
  const whole = await loudModel(await create(threads), config);
  const read = (name: string) => whole.weight(name).read();
  const backend = await create(threads);
  const split = await inThree(backend, config, () => Model.fromValues(backend, config, null, read));
  return { whole, split };
}

/** An adapter on every layer and a row of its own, none of it 0. */
function adapterOver(model: Model): Adapter {
  const random = new Random(3);
  const input = Float32Array.from({ length: model.config.hiddenSize }, () => random.normal());
  const config = { rank: 2, alpha: 4, targets: linearLayers(model.config) };
  const adapter = new Adapter(model, config, { ids: [model.config.vocabSize], input, output: input }, random);
  for (const name of config.targets) {
    const b = adapter.lora(name)?.b;
    b?.write(Float32Array.from({ length: b.size }, () => 0.1 * random.normal()));
  }
  return adapter;
}

/** Mean cross-entropy of the next token. */
function lossOf(model: Model, overlay?: Overlay): Loss<number[]> {
  return (tape, ids, scale) => {
    const count = ids.length;
    const hidden = forward(tape, model, ids, { overlay, batch: 2 });
    const targets = tape.from(Uint32Array.from(ids, (_, i) => ids[(i + 1) % count] as number));
    const weights = tape.from(new Float32Array(count).fill(scale / count));
    const rows = headCrossEntropy(tape, model, { hidden, overlay }, targets, weights);
    return async () => {
      const values = await rows.read();
      return { loss: values.reduce((sum, value) => sum + value, 0) / count, terms: {}, tokens: count };
    };
  };
}

/** Three steps, long enough gradients to be clipped, and what has become of the parameters. */
async function trained(parameters: Parameters, loss: Loss<number[]>, vocabSize: number, checkpoint: boolean) {
  const seen: number[] = [];
  const batches = { next: () => randomIds(24, vocabSize), state: null };
  const options = { lr: 1e-3, warmup: 0, decay: "constant", accumulate: 2, clip: 0.1, steps: 3 } as const;
  const run = train(parameters, loss, batches, { ...options, gradientCheckpointing: checkpoint });
  for await (const { loss, gradientNorm } of run) seen.push(loss, gradientNorm);
  return { seen, digest: await digestOfParameters(parameters) };
}

describe.each([1, 2])("a model in three memories, on %i threads", (threads) => {
  it.each([
    ["llama", deep(llama)],
    ["mistral", deep(mistral)],
    ["gpt2", deep(gpt2)],
  ] as const)("says what it says in one, to the bit: %s", async (_, config) => {
    const { whole, split } = await twins(config, threads);
    while ((split.backend as WasmBackend).threadCount < threads)
      await new Promise((resolve) => setTimeout(resolve, 1));
    const run = vi.spyOn(Threads.prototype, "run");
    expect(split.stretches.length).toBe(3);
    expect(split.stretches[0]?.backend).toBe(split.backend);
    expect(split.stretches.map(({ first }) => first)).toEqual([
      0,
      ...split.stretches.slice(0, -1).map(({ end }) => end),
    ]);
    const ids = randomIds(12, config.vocabSize);
    const found = await logitsOf(split, ids);
    const shared = new Set(run.mock.calls.map(([, , , , memory]) => memory));
    run.mockRestore();
    expect([...shared].sort()).toEqual(threads > 1 ? [0, 1, 2] : []);
    expect(found).toEqual(await logitsOf(whole, ids));
    expect(await digestOfParameters(split.weights)).toBe(await digestOfParameters(whole.weights));

    // Piece by piece through a cache, two sequences that differ in length.
    const decoded = async (model: Model) => {
      const cache = new KVCache(model.backend, config, 12, 2);
      const arena = new Arena(model.backend);
      const pieces: Float32Array[] = [];
      for (const [counts, ids] of [
        [[3, 1], randomIds(6, config.vocabSize, 1)],
        [[1, 1], randomIds(2, config.vocabSize, 2)],
      ] as const) {
        arena.reset();
        const tape = new Tape(arena, false);
        const hidden = forward(tape, model, ids, { cache, batch: 2, counts });
        pieces.push(await head(tape, model, hidden).read());
      }
      const { kvCache } = model.backend.memory().uses;
      cache.dispose();
      arena.dispose();
      return { pieces, kvCache };
    };
    expect(await decoded(split)).toEqual(await decoded(whole));
  });

  it.each([false, true])(
    "is trained as in one, to the bit; with checkpoints inside a pass: %s",
    async (checkpoint) => {
      const config = deep(llama);
      const { whole, split } = await twins(config, threads);
      const adapted = async (model: Model) => {
        const adapter = adapterOver(model);
        return trained(adapter.parameters, lossOf(model, adapter), config.vocabSize, checkpoint);
      };
      const found = await adapted(split);
      expect(found).toEqual(await adapted(whole));
      expect(new Set(found.seen).size).toBe(6);
    },
  );
});

describe("a model in several memories", () => {
  it("has its gradients as in one, tensor by tensor, where they belong", async () => {
    const config = deep(llama);
    const { whole, split } = await twins(config, 1);
    const gradientsOf = async (model: Model) => {
      const adapter = adapterOver(model);
      const optimiser = new AdamW(adapter.parameters);
      const tape = new Tape(new Arena(model.backend));
      lossOf(model, adapter)(tape, randomIds(24, config.vocabSize), 1);
      tape.backward();
      const found = new Map<string, Float32Array>();
      for (const [name, gradient] of optimiser.gradients.entries()) {
        expect(gradient.backend, name).toBe(adapter.parameters.get(name).backend);
        found.set(name, await gradient.read());
      }
      return { found, adapter };
    };
    const { found, adapter } = await gradientsOf(split);
    expect(found).toEqual((await gradientsOf(whole)).found);
    for (const [, values] of found) expect(values.some((value) => value !== 0)).toBe(true);
    for (let layer = 0; layer < config.layers; layer++) {
      const { a } = adapter.lora(`layers.${layer}.up`) ?? {};
      expect(a?.backend).toBe(split.weight(`layers.${layer}.up.weight`).backend);
    }
    expect(adapter.rows.input.backend).toBe(split.backend);
  });

  it("is trained whole as in one, to the bit", async () => {
    const config = deep(gpt2);
    const { whole, split } = await twins(config, 1);
    const row = new Float32Array(config.hiddenSize).fill(0.1);
    const tuned = async (model: Model) => {
      const tuning = await FullTuning.of(model, { ids: [config.vocabSize], input: row, output: row });
      return trained(tuning.parameters, lossOf(model, tuning), config.vocabSize, false);
    };
    expect(await tuned(split)).toEqual(await tuned(whole));
  });

  it.each([
    ["phi3, by its long factors", phi3],
    ["llama, by the frequencies of one length", { ...llama, position: dynamic }],
    ["qwen3", qwen3],
  ] as const)("is rotated and normed as in one: %s", async (_, tiny) => {
    const config = { ...tiny, layers: 6 };
    const { whole, split } = await twins(config, 1);
    expect(split.stretches.length).toBe(3);
    const ids = randomIds(20, config.vocabSize);
    expect(await logitsOf(split, ids)).toEqual(await logitsOf(whole, ids));
  });

  it("leaves nothing behind in a pass but the residual stream, on the way there and back", async () => {
    const config = deep(llama);
    const { whole, split } = await twins(config, 1);
    const ids = randomIds(16, config.vocabSize);
    const left = (model: Model) => {
      const arena = new Arena(model.backend);
      forward(new Tape(arena, false), model, ids);
      return arena.used;
    };
    const residual = 4 * ids.length * config.hiddenSize;
    expect(left(split) - left(whole)).toBe(2 * 2 * residual);
  });

  it("is refused where a layer has no room in any memory", async () => {
    const backend = await create(1, MEMORY_BYTES);
    const config = { ...deep(llama), intermediateSize: 30_000 };
    const weight = { shape: [], dtype: "f32", rowsTogether: 1, read: async () => {} } as const;
    await expect(Model.load(backend, config, null, () => weight)).rejects.toThrow(
      /^layer 0 has \d+ bytes, but a memory has room for/,
    );
    expect(backend.memory().used).toBe(0);
  });

  it("is counted as a whole, and gives all back", async () => {
    const backend = await create(2);
    const config = deep(llama);
    const model = await inThree(backend, config, () => loudModel(backend, config));
    const { used, uses, scratch, reserved, free } = backend.memory();
    const weights = model.weights.blocks.reduce((sum, { byteLength }) => sum + byteLength, 0);
    expect(uses.weights).toBe(weights);
    expect(used + scratch + free).toBe(reserved);
    const [first, ...others] = backend.openMemories?.(3) ?? [];
    expect(first).toBe(backend);
    for (const memory of others) {
      const [own] = model.weights.blocks.filter((block) => block.backend === memory);
      expect(memory.memory().uses.weights).toBe(own?.byteLength);
      // About a third.
      expect(own?.byteLength).toBeLessThan(0.4 * weights);
    }
    model.dispose();
    expect(backend.memory().used).toBe(0);
    (await loudModel(backend, config)).dispose();
    expect(backend.memory().reserved).toBe(reserved);
    backend.dispose();
    expect(backend.memory()).toMatchObject({ used: 0, reserved: 0 });
  });

  it("ends with the backend that it was loaded with", async () => {
    const backend = await create(2);
    const [, second] = backend.openMemories?.(2) ?? [];
    backend.dispose();
    expect(() => second?.allocate(1)).toThrow(BackendError);
    expect(() => backend.openMemories?.(3)).toThrow(BackendError);
  });
});

it("parameters without room in one of their memories hold nothing in the others", async () => {
  const backend = await create(1, MEMORY_BYTES);
  const [, second] = backend.openMemories?.(2) ?? [];
  second?.allocate(second.room as number);
  const { used } = backend.memory();
  const shapes = new Map(["a", "b"].map((name) => [name, [9]]));
  const backendOf = (name: string) => (name === "b" ? (second as Backend) : backend);
  expect(() => new Parameters(backend, shapes, { backendOf })).toThrow(/out of memory/);
  expect(backend.memory().used).toBe(used);
});

describe("layers are placed", () => {
  const rooms =
    (...bytes: number[]) =>
    (place: number) =>
      bytes[place] ?? (bytes.at(-1) as number);

  it.each([
    ["all in the first where there is room", 10, [5, 5, 5], rooms(25), [0, 0, 0]],
    ["evenly where there is not", 10, [5, 5, 5, 5, 5, 5], rooms(25), [0, 0, 0, 1, 1, 1]],
    ["behind a first that others fill", 30, [5, 5], rooms(25), [1, 1]],
    ["by the room that each has left", 0, [5, 5, 5], rooms(10, 4, 25), [0, 0, 2]],
    ["one a memory where no two have room", 0, [5, 5, 5], rooms(7), [0, 1, 2]],
  ] as const)("%s", (_, others, layers, roomIn, expected) => {
    expect(placeLayers(others, layers, roomIn)).toEqual(expected);
  });
});

describe("transfer", () => {
  it("copies numbers and brings their gradient back, and leaves alone what is there", async () => {
    const backend = await create(1);
    const other = backend.openMemories?.(2)[1] as Backend;
    const tape = new Tape(new Arena(backend));
    const x = tape.from(Float32Array.of(1, 2, 3));
    expect(transfer(tape, x, backend)).toBe(x);
    x.requiresGrad = true;
    const y = transfer(tape, x, other);
    expect(y.backend).toBe(other);
    expect(await y.read()).toEqual(Float32Array.of(1, 2, 3));
    expect(tape.backend).toBe(backend);
    tape.on(other, () => tape.grad(y)).write(Float32Array.of(4, 5, 6));
    tape.grad(x).write(Float32Array.of(10, 20, 30));
    tape.backward();
    expect(await x.grad?.read()).toEqual(Float32Array.of(14, 25, 36));
    const ids = transfer(tape, tape.from(Uint32Array.of(7, 8)), other);
    expect(await ids.readIds()).toEqual(Uint32Array.of(7, 8));
  });
});

describe("the bound of a memory", () => {
  it.each([0, 1 << 20, 2 ** 33, Number.NaN])("cannot be %s", async (memoryBytes) => {
    await expect(createBackend({ kind: "wasm", memoryBytes })).rejects.toThrow(
      /memoryBytes must be a number from/,
    );
  });

  it("is kept", async () => {
    const backend = await create(1, MEMORY_BYTES);
    expect(() => backend.allocate(MEMORY_BYTES)).toThrow(/out of memory/);
    expect(() => backend.allocate(backend.maxBlockBytes)).not.toThrow();
    expect(() => backend.allocate(1)).toThrow(/out of memory/);
    expect(backend.memory().reserved).toBe(MEMORY_BYTES);
  });
});
