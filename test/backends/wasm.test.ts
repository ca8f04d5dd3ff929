import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { gzipSync } from "node:zlib";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Backend } from "../../src/backend.js";
import { type BackendOptions, createBackend } from "../../src/backends/create.js";
import type { WasmBackend } from "../../src/backends/wasm/backend.js";
import { buildBytes } from "../../src/backends/wasm/module.js";
import { Threads } from "../../src/backends/wasm/threads.js";
import { TILES } from "../../src/backends/wasm/tiles.js";
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

/** A product whose sizes are multiples of no tile's, in each of the transpositions, as bits. */
async function products(backend: Backend): Promise<Uint32Array[]> {
  const random = new Random(2);
  const tape = new Tape(new Arena(backend), false);
  const [m, k, n] = [217, 301, 77];
  const noise = (length: number) => Float32Array.from({ length }, () => random.normal());
  const results: Uint32Array[] = [];
  for (const transposeA of [false, true]) {
    for (const transposeB of [false, true]) {
      const a = tape.from(noise(m * k), transposeA ? [k, m] : [m, k]);
      const b = tape.from(noise(k * n), transposeB ? [n, k] : [k, n]);
      results.push(new Uint32Array((await matmul(tape, a, b, { transposeA, transposeB }).read()).buffer));
    }
  }
  return results;
}

describe("the register tile", () => {
  it.each([1, 2])("changes no bit, on %i threads", async (threads) => {
    const [first, ...others] = await Promise.all(
      TILES.map(async (tile) => products(await create({ tile, threads }))),
    );
    for (const other of others) expect(other).toEqual(first);
  });

  it("is measured, kept in the cache, and can be given", async () => {
    const folder = await mkdtemp(join(tmpdir(), "oriflamme-"));
    vi.stubEnv("ORIFLAMME_CACHE", folder);
    try {
      const { tile } = await create({ threads: 1 });
      expect(TILES).toContain(tile);
      const [file = ""] = (await readdir(folder, { recursive: true })).filter((name) =>
        name.includes("tile-"),
      );
      expect(JSON.parse(await readFile(join(folder, file), "utf8"))).toBe(tile);
      const other = TILES.find((name) => name !== tile);
      await writeFile(join(folder, file), JSON.stringify(other));
      expect((await create({ threads: 1 })).tile).toBe(other);
      await writeFile(join(folder, file), '"3x5"');
      expect(TILES).toContain((await create({ threads: 1 })).tile);
      expect((await create({ threads: 1, tile: "4x16" })).tile).toBe("4x16");
      expect((await create({ threads: 1, deterministic: true })).tile).toBe("4x8");
      await expect(create({ tile: "3x5" as "4x8" })).rejects.toThrow(RangeError);
    } finally {
      vi.unstubAllEnvs();
      await rm(folder, { recursive: true });
    }
  });
});

/** `fill` with so much work declared that it is shared. */
const LARGE_FILL = kernel({
  name: "fill",
  writes: ["out"],
  reads: [],
  dims: ["n"],
  scalars: ["value"],
  range: ({ n }) => n,
  grid: () => [1],
  flops: () => 1e9,
});

describe("threads", () => {
  it("give the same bits for any number of them", async () => {
    const alone = await compute(await create({ threads: 1 }));
    for (const threads of [2, 3, 4, 7]) {
      const backend = await create({ threads });
      await whenReady(backend, threads);
      expect(await compute(backend, 20)).toEqual(alone);
      backend.dispose();
    }
  });

  it("run on memories that are opened later too, with the same bits", async () => {
    const alone = await compute(await create({ threads: 1 }));
    const backend = await create({ threads: 3 });
    await whenReady(backend, 3);
    const [first, second] = backend.openMemories(2);
    expect(first).toBe(backend);
    // The workers that know the new memory come up while it is used already.
    for (const memory of [second, backend]) expect(await compute(memory as Backend)).toEqual(alone);
    await whenReady(backend, 3);
    const third = backend.openMemories(3)[2];
    expect(backend.openMemories(2)).toEqual([first, second]);
    await whenReady(backend, 3);
    for (const memory of [third, second, backend, third])
      expect(await compute(memory as Backend, 5)).toEqual(alone);
  });

  it("join in while the caller already works", async () => {
    const alone = await compute(await create({ threads: 1 }));
    const backend = await create({ threads: 4 });
    for (let i = 0; i < 50; i++) expect(await compute(backend)).toEqual(alone);
    await whenReady(backend, 4);
  });

  it.each([1, 2])("surface a trap on %s as an error that says what it was, and go on", async (threads) => {
    const backend = await create({ threads });
    await whenReady(backend, threads);
    const far = { block: { offset: 2 ** 31, byteLength: 0 } as never, byteOffset: 0, byteLength: 0 };
    const trap = () => backend.dispatch(LARGE_FILL, { out: far, n: 1 << 20, value: 1 });
    expect(trap).toThrow(BackendError);
    expect(trap).toThrow(/'fill' failed: .*out of bounds/);
    expect(trap).toThrow(expect.objectContaining({ cause: expect.any(WebAssembly.RuntimeError) }));
    expect(await compute(backend)).toEqual(await compute(await create({ threads: 1 })));
  });

  it("are left alone where there is little to do", async () => {
    const backend = await create({ threads: 2 });
    const run = vi.spyOn(Threads.prototype, "run");
    const shared = () => run.mock.calls.filter(([name]) => name === "matmul").length;
    const tape = new Tape(new Arena(backend), false);
    for (const [m, k, n] of [
      [16, 16, 16],
      [1, 200, 200],
    ] as const) {
      matmul(tape, tape.filled([m, k], 1), tape.filled([k, n], 1));
    }
    expect(shared()).toBe(0);
    matmul(tape, tape.filled([64, 64], 1), tape.filled([64, 64], 1));
    expect(shared()).toBe(1);
    run.mockRestore();
  });

  it.each([0, -1, 1.5, 65, Number.NaN])("cannot be %s", async (threads) => {
    await expect(createBackend({ kind: "wasm", threads })).rejects.toThrow(RangeError);
  });
});

describe("builds", () => {
  it.each([
    ["baseline", false],
    ["baseline", true],
    ["relaxed", false],
    ["relaxed", true],
  ] as const)("take less than 100 KB to load: %s, shared: %s", async (build, shared) => {
    expect(gzipSync((await buildBytes(build, shared)).bytes).length).toBeLessThan(100_000);
  });

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

  // Only V8 on x64 has what it takes; elsewhere the option is without effect.
  const variant = process.arch === "x64" ? "revectorized" : "portable";
  it.each([
    { threads: 1 },
    { threads: 2 },
    { threads: 1, deterministic: true },
    { threads: 2, deterministic: true },
  ])("give the same bits revectorised: %j", async (options) => {
    const portable = await create(options);
    const backend = await create({ ...options, revectorize: true });
    expect(portable.variant).toBe("portable");
    expect(backend.variant).toBe(variant);
    expect(await compute(backend, 20)).toEqual(await compute(portable, 20));
  });
});

describe("a backend that was disposed of", () => {
  it("has let its memories go, though it is held itself", async () => {
    const backend = await create({ threads: 2 });
    const buffers = backend.openMemories(2).map((memory) => {
      const region = { block: memory.allocate(8), byteOffset: 0, byteLength: 8 };
      return new WeakRef(memory.view(region).buffer);
    });
    await whenReady(backend, 2);
    backend.dispose();
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    while (buffers.some((buffer) => buffer.deref())) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      collect();
    }
    expect(backend.memory().reserved).toBe(0);
  });

  it("says so whatever is asked of it, and may be disposed of again", async () => {
    const backend = await create({ threads: 2 });
    const block = backend.allocate(1024);
    const region = { block, byteOffset: 0, byteLength: 1024 };
    backend.dispose();
    backend.dispose();
    expect(backend.threadCount).toBe(1);
    const disposed = /the backend was disposed of/;
    expect(() => backend.allocate(1024)).toThrow(disposed);
    expect(() => backend.write(region, new Float32Array(1))).toThrow(disposed);
    expect(() => backend.copy(region, region)).toThrow(disposed);
    expect(() => backend.dispatch(LARGE_FILL, { out: region, n: 256, value: 1 })).toThrow(disposed);
    await expect(backend.read(region)).rejects.toThrow(disposed);
    await expect(backend.synchronize()).rejects.toThrow(disposed);
    expect(() => backend.free(block)).not.toThrow();
  });
});
