import { describe, expect, test } from "vitest";
import { accumulateKernel, addKernel } from "../../src/ops/add.js";
import { matmulKernel } from "../../src/ops/matmul.js";
import { fill, Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { numbers, openBackend, part, regionOf } from "./device.js";

describe("order", () => {
  test("a write after a dispatch comes after it, and before the next", async () => {
    const backend = await openBackend();
    const out = regionOf(backend, 3);
    const x = regionOf(backend, [1, 2, 3]);
    backend.dispatch(addKernel, { out, a: x, b: x, n: 3 });
    backend.write(x, Float32Array.of(10, 20, 30));
    const sum = regionOf(backend, 3);
    backend.dispatch(addKernel, { out: sum, a: out, b: x, n: 3 });
    expect(await numbers(backend, sum)).toEqual([12, 24, 36]);
  });

  test("reads that were asked for at different times see their times", async () => {
    const backend = await openBackend();
    const x = regionOf(backend, 4);
    backend.dispatch(fill, { out: x, n: 4, value: 1 });
    const first = numbers(backend, x);
    backend.dispatch(fill, { out: x, n: 4, value: 2 });
    const second = numbers(backend, x);
    backend.write(x, Float32Array.of(3, 3, 3, 3));
    const third = numbers(backend, x);
    expect(await Promise.all([first, second, third])).toEqual([
      [1, 1, 1, 1],
      [2, 2, 2, 2],
      [3, 3, 3, 3],
    ]);
  });

  test("a number of a tensor comes without the others, wherever it lies", async () => {
    const tape = new Tape(new Arena(await openBackend()), false);
    const x = tape.from(Float32Array.from({ length: 70 }, (_, i) => i / 8));
    expect(await Promise.all([0, 1, 65, 69].map((index) => x.at(index)))).toEqual([0, 0.125, 8.125, 8.625]);
  });

  test("more dispatches than a batch holds each have their own parameters", async () => {
    const backend = await openBackend();
    const sum = regionOf(backend, [0]);
    const one = regionOf(backend, [1]);
    const count = 1000;
    for (let i = 1; i <= count; i++) {
      backend.dispatch(accumulateKernel, { dx: sum, dout: one, n: 1, scale: i });
    }
    expect(await numbers(backend, sum)).toEqual([(count * (count + 1)) / 2]);
  });

  test("a block that a recorded dispatch uses can be freed", async () => {
    const backend = await openBackend();
    const out = regionOf(backend, 2);
    const x = regionOf(backend, [1, 2]);
    backend.dispatch(addKernel, { out, a: x, b: x, n: 2 });
    backend.free(x.block as ReturnType<typeof backend.allocate>);
    expect(await numbers(backend, out)).toEqual([2, 4]);
  });
});

describe("copy", () => {
  test("between dispatches, from block to block", async () => {
    const backend = await openBackend();
    const x = regionOf(backend, 3);
    const y = regionOf(backend, 3);
    backend.dispatch(fill, { out: x, n: 3, value: 5 });
    backend.copy(y, x);
    backend.dispatch(fill, { out: x, n: 3, value: 6 });
    expect(await numbers(backend, y)).toEqual([5, 5, 5]);
    expect(await numbers(backend, x)).toEqual([6, 6, 6]);
  });

  test("within a block, several times before the device runs", async () => {
    const backend = await openBackend();
    const all = regionOf(backend, 256);
    backend.write(part(all, 0, 2), Float32Array.of(1, 2));
    backend.copy(part(all, 64, 2), part(all, 0, 2));
    backend.dispatch(fill, { out: part(all, 0, 2), n: 2, value: 7 });
    backend.copy(part(all, 128, 2), part(all, 0, 2));
    expect(await numbers(backend, part(all, 64, 2))).toEqual([1, 2]);
    expect(await numbers(backend, part(all, 128, 2))).toEqual([7, 7]);
  });
});

describe("operands", () => {
  test("one tensor may be read as two", async () => {
    const backend = await openBackend();
    const x = regionOf(backend, [1, 2, 3]);
    const out = regionOf(backend, 3);
    backend.dispatch(addKernel, { out, a: x, b: x, n: 3 });
    expect(await numbers(backend, out)).toEqual([2, 4, 6]);
  });

  test("a kernel may read what it overwrites", async () => {
    const backend = await openBackend();
    const x = regionOf(backend, [1, 2, 3]);
    backend.dispatch(accumulateKernel, { dx: x, dout: x, n: 3, scale: 2 });
    expect(await numbers(backend, x)).toEqual([3, 6, 9]);
  });

  test("views of one block are bound together, and a null bias is not touched", async () => {
    const backend = await openBackend();
    const all = regionOf(backend, 256);
    const [a, b, out] = [part(all, 0, 4), part(all, 64, 4), part(all, 128, 4)] as const;
    backend.write(a, Float32Array.of(1, 2, 3, 4));
    backend.write(b, Float32Array.of(1, 0, 0, 1));
    const strides = { a_batch: 4, a_m: 2, a_k: 1, b_batch: 4, b_k: 2, b_n: 1, out_batch: 4, out_m: 2 };
    const dims = { batch: 1, m: 2, k: 2, n: 2, ...strides, base_m: 0, has_base: 0, accumulate: 0, alpha: 1 };
    backend.dispatch(matmulKernel, { out, a, b, base: null, ...dims });
    expect(await numbers(backend, out)).toEqual([1, 2, 3, 4]);
  });
});

describe("memory", () => {
  test("is counted by its use, and given back", async () => {
    const backend = await openBackend();
    const before = backend.memory();
    const block = backend.allocate(1000, "tables");
    expect(block.byteLength).toBe(1024);
    expect(backend.extend(block, 2000)).toBe(false);
    const { used, uses, scratch, reserved, free } = backend.memory();
    expect(used).toBe(before.used + 1024);
    expect(uses).toEqual({ ...before.uses, tables: before.uses.tables + 1024 });
    expect(free).toBe(0);
    expect(reserved).toBe(used + scratch);
    backend.free(block);
    expect(backend.memory()).toEqual(before);
  });

  test("a read may end inside a word", async () => {
    const backend = await openBackend();
    const region = { ...regionOf(backend, 2), byteLength: 7 };
    backend.write(region, Uint8Array.of(1, 2, 3, 4, 5, 6, 7));
    expect([...new Uint8Array(await backend.read(region))]).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });
});
