import { describe, expect, test } from "vitest";
import { BackendError } from "../../src/errors.js";
import { wgsl } from "../../src/generated/wgsl.js";
import { kernel } from "../../src/kernel.js";
import { swigluBackwardKernel } from "../../src/ops/swiglu.js";
import { fill } from "../../src/tape.js";
import { numbers, openBackend, openWith, regionOf } from "./device.js";

/** `fill` with a slip in its last statement. */
const BROKEN = (wgsl.fill ?? "").replace("params.value", "params.valu");
const LINE = BROKEN.split("\n").findIndex((line) => line.includes("params.valu;")) + 1;

async function rejection(promise: Promise<unknown>): Promise<Error> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(BackendError);
  return error as Error;
}

describe("a shader that does not compile", () => {
  test("rejects the next read with its file, line and message; the dispatch after that throws it", async () => {
    const backend = await openWith({ fill: BROKEN });
    const out = regionOf(backend, 4);
    backend.dispatch(fill, { out, n: 4, value: 1 });
    const { message } = await rejection(backend.read(out));
    expect(message).toMatch(new RegExp(`^kernels/fill\\.wgsl:${LINE}:\\d+: .*valu`));
    expect(() => backend.dispatch(fill, { out, n: 4, value: 1 })).toThrow(message);
  });

  test("rejects synchronize", async () => {
    const backend = await openWith({ fill: BROKEN });
    backend.dispatch(fill, { out: regionOf(backend, 4), n: 4, value: 1 });
    expect((await rejection(backend.synchronize())).message).toContain("kernels/fill.wgsl:");
  });

  test("rejects prepare", async () => {
    const backend = await openWith({ fill: BROKEN });
    expect((await rejection(backend.prepare([fill]))).message).toContain(`kernels/fill.wgsl:${LINE}:`);
  });
});

test("prepare compiles kernels ahead", async () => {
  const backend = await openBackend();
  await backend.prepare([fill, swigluBackwardKernel, fill]);
  const out = regionOf(backend, 2);
  backend.dispatch(fill, { out, n: 2, value: 9 });
  expect(await numbers(backend, out)).toEqual([9, 9]);
});

test("a kernel without a shader is named", async () => {
  const backend = await openBackend();
  const stray = kernel({
    name: "stray",
    writes: ["out"],
    reads: [],
    dims: ["n"],
    range: () => 1,
    grid: () => [1],
  });
  expect(() => backend.dispatch(stray, { out: regionOf(backend, 1), n: 1 })).toThrow(
    new BackendError("webgpu: no kernel is named 'stray'"),
  );
});

test("what the device refuses rejects the next synchronize once", async () => {
  const backend = await openBackend();
  backend.device.createBuffer({ size: 4, usage: 0x1 | 0x80 });
  expect((await rejection(backend.synchronize())).message).toMatch(/^webgpu: .*usage/i);
  await backend.synchronize();
});

test("overlapping writes are refused by name", async () => {
  const backend = await openBackend();
  const [x, dout] = [regionOf(backend, [1]), regionOf(backend, [2])];
  const call = () => backend.dispatch(swigluBackwardKernel, { gate: x, up: x, dout, n: 1 });
  expect(call).toThrow(new BackendError("webgpu: swiglu_backward: gate and up overlap"));
});

test("a block over the device's limit is refused with both sizes", async () => {
  const backend = await openBackend();
  const size = backend.maxBlockBytes + 1;
  expect(() => backend.allocate(size)).toThrow(new RegExp(`${size} bytes.*${backend.maxBlockBytes}`));
});

test("a lost device rejects what waits for it, and every later call", async () => {
  const backend = await openBackend();
  const x = regionOf(backend, [1]);
  const pending = backend.read(x);
  backend.device.destroy();
  expect((await rejection(pending)).message).toMatch(/^webgpu: the device was lost: ./);
  expect((await rejection(backend.synchronize())).message).toMatch(/lost/);
  expect(() => backend.allocate(4)).toThrow(BackendError);
});

test("a backend that was disposed of says so, and can be disposed of again", async () => {
  const backend = await openBackend();
  backend.dispose();
  expect(() => backend.allocate(4)).toThrow(new BackendError("webgpu: the backend was disposed of"));
  backend.dispose();
});
