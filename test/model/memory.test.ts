import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { forward } from "../../src/model/forward.js";
import { Tape } from "../../src/tape.js";
import { Arena, Parameters, type Tensor } from "../../src/tensor.js";
import { languageLoss } from "../../src/train/language.js";
import { AdamW } from "../../src/train/optimiser.js";
import { BackendWrapper } from "../ops/split.js";
import { ALL_CONFIGS, baseline, loudModel, randomIds } from "./tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

/** A backend whose blocks can't grow. */
class Rigid extends BackendWrapper {
  override extend(): boolean {
    return false;
  }
}

describe("the arena", () => {
  it("aligns, does not overlap, and counts what is in use", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 30 }), (sizes) => {
        const arena = new Arena(backend, 4096);
        const seen: Tensor[] = [];
        for (const size of sizes) {
          const tensor = arena.tensor([size]);
          expect(tensor.byteOffset % 256).toBe(0);
          expect(tensor.byteOffset + tensor.byteLength).toBeLessThanOrEqual(tensor.block.byteLength);
          for (const other of seen.filter(({ block }) => block === tensor.block)) {
            expect(other.byteOffset + other.byteLength).toBeLessThanOrEqual(tensor.byteOffset);
          }
          seen.push(tensor);
          expect(arena.peak).toBe(arena.used);
        }
        arena.dispose();
      }),
    );
  });

  it("goes back to a mark", () => {
    const arena = new Arena(backend, 1024);
    arena.tensor([10]);
    const mark = arena.mark();
    const first = arena.tensor([64]);
    arena.tensor([1000]);
    const { used } = arena;
    arena.release(mark);
    const again = arena.tensor([64]);
    expect([again.block, again.byteOffset]).toEqual([first.block, first.byteOffset]);
    expect(arena.used).toBeLessThan(used);
    expect(arena.peak).toBe(used);
    arena.dispose();
  });

  it("grows in place", () => {
    const before = backend.memory().used;
    const arena = new Arena(backend, 1024);
    const tensors = [300, 5, 900, 12].map((size) => arena.tensor([size]));
    expect(new Set(tensors.map(({ block }) => block)).size).toBe(1);
    // Each rounded up to 256 bytes, and nothing between them.
    expect(backend.memory().used - before).toBe(1280 + 256 + 3840 + 256);
    arena.dispose();
    expect(backend.memory().used).toBe(before);
  });

  it("joins blocks that waste room on reset, and then allocates no more", () => {
    const before = backend.memory().used;
    const arena = new Arena(new Rigid(backend), 1024);
    const turn = () => [100, 300, 5, 900, 12].map((size) => arena.tensor([size]).block);
    expect(new Set(turn()).size).toBeGreaterThan(1);
    arena.reset();
    expect(arena.used).toBe(0);
    const { used } = backend.memory();
    for (let i = 0; i < 3; i++) {
      expect(new Set(turn()).size).toBe(1);
      expect(backend.memory().used).toBe(used);
      arena.reset();
    }
    arena.dispose();
    expect(backend.memory().used).toBe(before);
    expect(arena.tensor([1]).byteOffset).toBe(0);
    arena.dispose();
  });
});

describe("parameters", () => {
  it("are aligned views of one block, zero at first", async () => {
    const used = backend.memory().used;
    const shapes = new Map([
      ["a", [3]],
      ["b", [65, 2]],
      ["c", [1]],
    ]);
    const parameters = new Parameters(backend, shapes);
    expect(parameters.all.size % 64).toBe(0);
    expect((await parameters.all.read()).every((value) => value === 0)).toBe(true);
    const ends: number[] = [];
    for (const [name, tensor] of parameters.entries()) {
      expect(tensor.shape).toBe(shapes.get(name));
      expect(tensor.block).toBe(parameters.all.block);
      expect(tensor.byteOffset % 256).toBe(0);
      expect(tensor.byteOffset).toBeGreaterThanOrEqual(ends.at(-1) ?? 0);
      ends.push(tensor.byteOffset + tensor.byteLength);
    }
    expect(parameters.all.byteLength).toBeGreaterThanOrEqual(ends.at(-1) ?? 0);
    parameters.get("b").write(new Float32Array(130).fill(2));
    expect((await parameters.all.read()).reduce((a, b) => a + b, 0)).toBe(260);
    expect(parameters.has("d")).toBe(false);
    expect(() => parameters.get("d")).toThrow(/no parameter is named 'd'/);
    expect(() => parameters.get("a").write(new Float32Array(4))).toThrow(RangeError);
    parameters.dispose();
    expect(backend.memory().used).toBe(used);
  });

  it("lie in several blocks where one would be too large, and are stepped all the same", async () => {
    class Narrow extends BackendWrapper {
      override get maxBlockBytes(): number {
        return 1024;
      }
    }
    const shapes = new Map([
      ["a", [100]],
      ["b", [100]],
      ["c", [30]],
      ["d", [256]],
    ]);
    const stepped = async (on: Backend) => {
      const parameters = new Parameters(on, shapes);
      const optimiser = new AdamW(parameters);
      const arena = new Arena(on, 1024);
      for (const [name, gradient] of optimiser.gradients.entries()) {
        const start = name.charCodeAt(0);
        gradient.write(Float32Array.from({ length: gradient.size }, (_, i) => Math.sin(start + i)));
      }
      const norm = await optimiser.gradientNorm(new Tape(arena, false));
      optimiser.step(new Tape(arena, false), 0.1, 1 / norm);
      const values = await Promise.all([...parameters.entries()].map(([, tensor]) => tensor.read()));
      const sizes = parameters.blocks.map(({ byteLength }) => byteLength);
      for (const part of [parameters, optimiser, arena]) part.dispose();
      return { norm, values, sizes };
    };
    const { used } = backend.memory();
    const whole = await stepped(backend);
    const narrow = await stepped(new Narrow(backend));
    expect(narrow).toEqual({ ...whole, sizes: [1024, 256, 1024] });
    expect(whole.sizes).toEqual([2304]);
    expect(narrow.values.flatMap((values) => [...values]).every((value) => value !== 0)).toBe(true);
    expect(() => new Parameters(new Narrow(backend), shapes).all).toThrow("parameters in 3 blocks");
    expect(backend.memory().used).toBe(used + 2304);
  });

  it("are read into an array of their size, or one of their own", async () => {
    const tensor = new Arena(backend, 1024).tensor([2, 3]);
    tensor.write(Float32Array.of(1, 2, 3, 4, 5, 6));
    const whole = new Float32Array(8);
    expect(await tensor.read(whole.subarray(1, 7))).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
    expect(whole).toEqual(Float32Array.of(0, 1, 2, 3, 4, 5, 6, 0));
    expect(await tensor.read()).toEqual(whole.slice(1, 7));
    await expect(tensor.read(whole)).rejects.toThrow("read: 8 values of a tensor of shape (2, 3)");
  });

  it("gives single numbers", async () => {
    const arena = new Arena(backend, 1024);
    const tensor = arena.tensor([2, 3]);
    tensor.write(Float32Array.of(1, 2, 3, 4, 5, 6.5));
    expect(await Promise.all([0, 4, 5].map((index) => tensor.at(index)))).toEqual([1, 5, 6.5]);
    for (const index of [-1, 6, Number.NaN])
      await expect(tensor.at(index)).rejects.toThrow(`at: there is no f32 number ${index} in (2, 3) of f32`);
    await expect(arena.tensor([3], "u32").at(0)).rejects.toThrow(RangeError);
  });

  it("reshape keeps memory and size", () => {
    const tensor = new Arena(backend, 1024).tensor([2, 6]);
    expect(tensor.reshape([3, 4])).toMatchObject({
      block: tensor.block,
      byteOffset: tensor.byteOffset,
      shape: [3, 4],
    });
    expect(() => tensor.reshape([5])).toThrow(/\(2, 6\) has not the size of \(5\)/);
  });
});

describe("rows of a tensor", () => {
  const tensor = (shape: readonly number[]) => new Arena(backend, 1 << 16).tensor(shape);

  it("share its memory, and their gradient the gradient's", () => {
    const whole = tensor([4, 128]);
    whole.requiresGrad = true;
    whole.grad = tensor([4, 128]);
    const part = whole.rows(1, 3);
    expect(part).toMatchObject({ block: whole.block, byteOffset: 512, shape: [2, 128], requiresGrad: true });
    expect(part.grad).toMatchObject({ block: whole.grad.block, byteOffset: 512, shape: [2, 128] });
    expect(tensor([3, 5]).rows(0, 0).grad).toBeUndefined();
  });

  it.each([
    ["behind the last", 3, 5],
    ["before the first", -1, 2],
    ["in the wrong order", 2, 1],
    ["that begin where no binding can", 1, 2],
  ])("%s are refused", (_, from, to) => {
    expect(() => tensor([4, 3]).rows(from, to)).toThrow(`rows: ${from} to ${to} of (4, 3)`);
  });
});

describe.each(ALL_CONFIGS)("memory of a pass: %s", (_, config) => {
  const ids = randomIds(16, config.vocabSize);

  it("does not grow with the layers where nothing is recorded", async () => {
    const peak = async (layers: number) => {
      const model = await loudModel(backend, { ...config, layers });
      const arena = new Arena(backend, 1 << 20);
      forward(new Tape(arena, false), model, ids);
      model.dispose();
      arena.dispose();
      return arena.peak;
    };
    expect(await peak(9)).toBe(await peak(2));
  });

  it("keeps no gradient of a layer longer than to the next", async () => {
    const extra = async (layers: number) => {
      const model = await loudModel(backend, { ...config, layers });
      const optimiser = new AdamW(model.weights);
      const arena = new Arena(backend, 1 << 22);
      const tape = new Tape(arena);
      languageLoss(model)(tape, { ids, batch: 1 }, 1);
      const { used } = arena;
      tape.backward();
      optimiser.dispose();
      model.dispose();
      arena.dispose();
      return arena.peak - used;
    };
    expect(await extra(9)).toBe(await extra(2));
  });
});

it("a block's result takes its input's place, and one of another size is refused", async () => {
  const arena = new Arena(backend, 1 << 16);
  const tape = new Tape(arena, false);
  const input = tape.from(Float32Array.of(1, 2, 3, 4));
  const { used } = arena;
  const result = tape.block(input, () => {
    tape.empty([1000]);
    return tape.filled([4], 5);
  });
  expect(arena.used).toBe(used);
  expect(result).toBe(input);
  expect(await result.read()).toEqual(Float32Array.of(5, 5, 5, 5));
  expect(() => tape.block(input, () => tape.empty([5]))).toThrow(RangeError);
});
