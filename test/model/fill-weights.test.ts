import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { createBackend } from "../../src/backends/create.js";
import { bytesOf, encode, WEIGHT_TYPES, type WeightType } from "../../src/dtype.js";
import { FormatError } from "../../src/errors.js";
import { writeHuggingFace } from "../../src/formats/hf-write.js";
import { loadModel } from "../../src/formats/load-model.js";
import { expectFiniteBytes } from "../../src/formats/weights.js";
import { fillWeights, type LoadProgress } from "../../src/model/fill-weights.js";
import { Model } from "../../src/model/model.js";
import type { StoredWeight } from "../../src/model/stored-weight.js";
import { Parameters, sizeOf } from "../../src/tensor.js";
import { readerOf, rejection, someWeights, temporaryFolder } from "../formats/helpers.js";
import { gpt2, llama } from "./tiny.js";

const open: Backend[] = [];
afterEach(() => {
  for (const backend of open.splice(0)) backend.dispose();
});

async function create(threads: number): Promise<Backend> {
  const backend = await createBackend({ kind: "wasm", threads });
  open.push(backend);
  return backend;
}

/** Bytes that differ from place to place. */
function someBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => Math.imul(i + seed, 0x9e3779b1) >>> 24);
}

type OnRead = (first: number, into: Uint8Array) => Promise<void> | void;

/** A weight of those bytes; `onRead` is called before each piece is copied, and may wait. */
function weightOf(
  bytes: Uint8Array,
  shape: readonly number[],
  dtype: WeightType,
  onRead: OnRead = () => {},
): StoredWeight {
  const rowBytes = bytes.length / (shape[0] as number);
  return {
    ...{ shape, dtype, rowsTogether: 1 },
    async read(first, rows, into) {
      await onRead(first, into);
      into.set(bytes.subarray(first * rowBytes, (first + rows) * rowBytes));
    },
  };
}

describe("a model that is loaded as it is stored", () => {
  it.each([
    ["llama", llama, "f16"],
    ["llama", llama, "bf16"],
    ["gpt2", gpt2, "f16"],
    ["gpt2", gpt2, "bf16"],
    ["gpt2", gpt2, "f32"],
  ] as const)("keeps the matrices of a file: %s in %s", async (_name, config, dtype) => {
    const folder = join(await temporaryFolder(), "m");
    const weights = someWeights(config);
    await writeHuggingFace(folder, config, readerOf(weights), { dtype });
    const model = await loadModel(folder, { backend: await create(1) });
    for (const [name, tensor] of model.weights.entries()) {
      const isMatrix = tensor.shape.length === 2 && name !== "positions.weight";
      expect(tensor.dtype, name).toBe(isMatrix ? dtype : "f32");
      const values = weights.get(name) as Float32Array;
      const rounded = dtype === "f32" ? new Uint8Array(values.buffer) : encode(dtype, values);
      if (isMatrix) expect(new Uint8Array(await model.backend.read(tensor)), name).toEqual(rounded);
    }
  });

  it("keeps what no kernel takes as what its reader says, f16 where the rows are no whole blocks", async () => {
    const values = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
    const tensors = { ...llama, hiddenSize: 32, headDim: 8, intermediateSize: 40, layers: 1 };
    const model = await Model.load(await create(1), tensors, null, (name) => {
      const shape = shapeOf(name);
      const bytes = new Uint8Array(
        Float32Array.from({ length: sizeOf(shape) }, (_, i) => values[i % 64] as number).buffer,
      );
      return { ...weightOf(bytes, shape, "f32"), keepAs: "q8_0" };
    });
    expect(model.weight("layers.0.q.weight").dtype).toBe("q8_0");
    expect(model.weight("layers.0.down.weight").dtype).toBe("f16");
    expect(model.weight("norm.weight").dtype).toBe("f32");
    expect(
      new Uint8Array(await model.backend.read(model.weight("layers.0.q.weight").rowBlock(0, 2))),
    ).toEqual(encode("q8_0", values));
    function shapeOf(name: string): readonly number[] {
      const width = name.includes("down") ? [32, 40] : /gate|up/.test(name) ? [40, 32] : [32, 32];
      if (/norm/.test(name)) return [32];
      if (name.startsWith("embed")) return [19, 32];
      return /\.[kv]\./.test(name) ? [16, 32] : width;
    }
  });
});

describe("weights are read", () => {
  /** Two matrices of more than a piece, and one with a row of an odd number of halves. */
  const shapes = new Map([
    ["a", [700, 1024]],
    ["b", [3, 7]],
    ["c", [900, 512]],
  ]);
  const dtypes = new Map([
    ["a", "bf16"],
    ["b", "f16"],
    ["c", "f32"],
  ] as const);
  const contents = new Map(
    [...shapes].map(([name, shape], i) => [
      name,
      someBytes(bytesOf(dtypes.get(name as "a") as WeightType, shape), i),
    ]),
  );
  const stored = (name: string, onRead?: OnRead) =>
    weightOf(
      contents.get(name) as Uint8Array,
      shapes.get(name) as number[],
      dtypes.get(name as "a") as WeightType,
      onRead,
    );
  async function expectContents(weights: Parameters): Promise<void> {
    for (const [name, tensor] of weights.entries()) {
      const found = new Uint8Array(await weights.backend.read(tensor));
      expect(Buffer.compare(found, contents.get(name) as Uint8Array), name).toBe(0);
    }
  }

  it.each([1, 2])("straight into the memory, with zeros between them, on %i threads", async (threads) => {
    const backend = await create(threads);
    // What a block that was given back leaves behind.
    const used = new Parameters(backend, new Map([["x", [1_000_000]]]));
    used.all.write(new Float32Array(used.all.size).fill(7));
    used.dispose();
    const weights = new Parameters(backend, shapes, { dtypes, isFilled: true });
    const seen: LoadProgress[] = [];
    const memory = backend.view?.(weights.all).buffer;
    await fillWeights(
      weights,
      (name) => stored(name, (_, into) => expect(into.buffer).toBe(memory)),
      (progress) => seen.push(progress),
    );
    await expectContents(weights);
    const whole = new Uint8Array(await backend.read(weights.all));
    const b = weights.get("b");
    const padding = whole.subarray(b.byteOffset + b.byteLength, weights.get("c").byteOffset);
    expect([...new Set(padding)]).toEqual([0]);
    const total = [...contents.values()].reduce((sum, { length }) => sum + length, 0);
    expect(seen.at(-1)).toEqual({ loaded: total, total });
    expect(seen.length).toBeGreaterThan(4);
    seen.forEach(({ loaded }, i) => {
      if (i > 0) expect(loaded).toBeGreaterThan(seen[i - 1]?.loaded as number);
    });
  });

  it("again where the memory grows meanwhile and leaves its views behind", async () => {
    const backend = await create(1);
    const weights = new Parameters(backend, shapes, { dtypes, isFilled: true });
    const blocks: object[] = [];
    let lost = 0;
    await fillWeights(weights, (name) =>
      stored(name, async (_, into) => {
        await Promise.resolve();
        if (blocks.length < 3) blocks.push(backend.allocate(5 << 20));
        if (into.length === 0) lost++;
      }),
    );
    expect(lost).toBeGreaterThan(0);
    await expectContents(weights);
  });

  it("not on where one fails, which is told once none is under way", async () => {
    const backend = await create(2);
    const weights = new Parameters(backend, shapes, { dtypes, isFilled: true });
    let underWay = 0;
    let begun = 0;
    const failing = (name: string) =>
      stored(name, async (first) => {
        underWay++;
        begun++;
        await new Promise((resolve) => setTimeout(resolve, name === "a" && first === 0 ? 1 : 20));
        underWay--;
        if (name === "a" && first === 0) throw new FormatError("f", "became shorter");
      });
    expect((await rejection(fillWeights(weights, failing))).message).toContain("became shorter");
    expect([begun, underWay]).toEqual([2, 0]);
  });
});

describe("the check for finite values", () => {
  /** Offsets of halves in a word or block that carry an exponent, and the bits that make it one of ones. */
  const exponents = { f32: 0x7f80, f16: 0x7c00, bf16: 0x7f80, q8_0: 0x7c00, q4_0: 0x7c00 };

  it.each(WEIGHT_TYPES)("finds the one bad %s among good ones, wherever it is", (dtype) => {
    const block = dtype === "q8_0" || dtype === "q4_0" ? 32 : 1;
    const bytes = bytesOf(dtype, [block]);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        fc.nat(),
        fc.integer({ min: 0, max: 0xffff }),
        fc.constantFrom(0, 2),
        (count, place, bits, shift) => {
          const at = place % count;
          const offset = dtype === "f32" ? 0 : shift;
          const stored = new Uint8Array(new ArrayBuffer(8 + count * bytes), offset, count * bytes);
          const half = (i: number) => i * bytes + (dtype === "f32" ? 2 : 0);
          const put = (i: number, value: number) => {
            stored[half(i)] = value & 0xff;
            stored[half(i) + 1] = value >> 8;
          };
          // The largest finite exponent everywhere, and all other bits set.
          stored.fill(0xff);
          for (let i = 0; i < count; i++) put(i, 0xffff & ~(exponents[dtype] & -exponents[dtype]));
          expect(() => expectFiniteBytes(dtype, stored, "f", "t")).not.toThrow();
          put(at, bits | exponents[dtype]);
          expect(() => expectFiniteBytes(dtype, stored, "f", "t", 5 * bytes)).toThrow(
            new RegExp(`^f: tensor 't' holds .* at index ${(5 + at) * block}$`),
          );
        },
      ),
    );
  });

  it("is made of every piece of a file", async () => {
    const folder = join(await temporaryFolder(), "m");
    await writeHuggingFace(folder, llama, readerOf(someWeights(llama)), { dtype: "f16" });
    const path = join(folder, "model.safetensors");
    const bytes = await readFile(path);
    bytes.writeUInt16LE(0x7c00, bytes.length - 2);
    await writeFile(path, bytes);
    const error = await rejection(loadModel(folder, { backend: await create(1) }));
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toMatch(/holds Infinity at index/);
  });
});
