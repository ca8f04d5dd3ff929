import { afterEach, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { type BackendOptions, createBackend } from "../../src/backends/create.js";
import type { WasmBackend } from "../../src/backends/wasm/backend.js";
import { BackendError } from "../../src/errors.js";
import { kernel } from "../../src/kernel.js";
import { matmul } from "../../src/ops/matmul.js";
import { softmax } from "../../src/ops/softmax.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";

const open: Backend[] = [];
afterEach(() => {
  for (const backend of open.splice(0)) backend.dispose();
});

async function create(options: BackendOptions): Promise<WasmBackend> {
  const backend = await createBackend({ kind: "wasm", ...options });
  open.push(backend);
  return backend as WasmBackend;
}

/** Waits until the workers have come up. */
async function whenReady(backend: WasmBackend, threads: number): Promise<void> {
  while (backend.threadCount < threads) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** A product and a softmax large enough to be shared, over and over. */
async function compute(backend: Backend, turns = 1): Promise<Uint32Array> {
  const random = new Random(1);
  const noise = (length: number) => Float32Array.from({ length }, () => random.normal());
  const arena = new Arena(backend);
  const inputs = new Tape(arena, false);
  const [a, b] = [inputs.from(noise(150 * 190), [150, 190]), inputs.from(noise(190 * 170), [190, 170])];
  const mark = arena.mark();
  let result = new Float32Array();
  for (let turn = 0; turn < turns; turn++) {
    arena.release(mark);
    const tape = new Tape(arena, false);
    result = (await softmax(tape, matmul(tape, a, b)).read()) as typeof result;
  }
  arena.dispose();
  return new Uint32Array(result.buffer);
}

describe("threads", () => {
  it("give the same bits for any number of them", async () => {
    const alone = await compute(await create({ threads: 1 }));
    for (const threads of [2, 3, 8]) {
      const backend = await create({ threads });
      await whenReady(backend, threads);
      expect(await compute(backend, 20)).toEqual(alone);
    }
  });

  it("join in while the caller already works", async () => {
    const alone = await compute(await create({ threads: 1 }));
    const backend = await create({ threads: 4 });
    for (let i = 0; i < 50; i++) expect(await compute(backend)).toEqual(alone);
    await whenReady(backend, 4);
  });

  it("surface a trap in a kernel as an error, and go on", async () => {
    const backend = await create({ threads: 2 });
    await whenReady(backend, 2);
    const far = {
      block: { offset: 2 ** 31, byteLength: 0 } as never,
      byteOffset: 0,
      byteLength: 0,
    };
    const fill = kernel({
      name: "fill",
      writes: ["out"],
      reads: [],
      dims: ["n"],
      scalars: ["value"],
      range: ({ n }) => n,
      grid: () => [1],
      flops: () => 1e9,
    });
    expect(() => backend.dispatch(fill, { out: far, n: 1 << 20, value: 1 })).toThrow();
    expect(await compute(backend)).toEqual(await compute(await create({ threads: 1 })));
  });

  it.each([0, -1, 1.5, 65, Number.NaN])("cannot be %s", async (threads) => {
    await expect(createBackend({ kind: "wasm", threads })).rejects.toThrow(RangeError);
  });
});

describe("builds", () => {
  it("refuse what contradicts itself", async () => {
    await expect(createBackend({ kind: "wasm", wasm: "relaxed", deterministic: true })).rejects.toThrow(
      /deterministic/,
    );
    await expect(createBackend({ kind: "webgpu", deterministic: true })).rejects.toThrow(/deterministic/);
    await expect(createBackend({ kind: "wasm", wasm: "best" as never })).rejects.toThrow(/'best'/);
    await expect(createBackend({ kind: "cuda" as never })).rejects.toThrow(/'cuda'/);
  });

  it("refuse a module that is not the kernels", async () => {
    const empty = await WebAssembly.compile(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0));
    await expect(createBackend({ kind: "wasm", module: empty })).rejects.toThrow(BackendError);
  });

  it("give the same bits revectorised", async () => {
    const portable = await compute(await create({ threads: 1 }));
    const backend = await create({ threads: 2, revectorize: true });
    expect(backend.variant).toBe("revectorized");
    expect(await compute(backend, 200)).toEqual(portable);
  });
});
