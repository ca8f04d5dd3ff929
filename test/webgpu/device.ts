import { onTestFinished } from "vitest";
import { WebGPUBackend } from "../../src/backends/webgpu/backend.js";
import { createWebGPUBackend } from "../../src/backends/webgpu/device.js";
import type { Region } from "../../src/kernel.js";

/** A backend for one test. A machine without an adapter fails it: these tests are never skipped. */
export async function openBackend(): Promise<WebGPUBackend> {
  const backend = await createWebGPUBackend();
  onTestFinished(() => backend.dispose());
  return backend;
}

/** A backend with shaders of the test's own. */
export async function openWith(sources: Readonly<Record<string, string>>): Promise<WebGPUBackend> {
  const { device, description } = await openBackend();
  const backend = new WebGPUBackend(device, { description, owned: false, sources });
  onTestFinished(() => backend.dispose());
  return backend;
}

/** A block as one region, filled with `values` or as long as their count says. */
export function regionOf(backend: WebGPUBackend, values: readonly number[] | number): Region {
  const count = typeof values === "number" ? values : values.length;
  const block = backend.allocate(count * 4);
  const region = { block, byteOffset: 0, byteLength: count * 4 };
  if (typeof values !== "number") backend.write(region, Float32Array.from(values));
  return region;
}

/** A part of a region, in numbers. */
export function part(region: Region, first: number, count: number): Region {
  return { block: region.block, byteOffset: region.byteOffset + first * 4, byteLength: count * 4 };
}

export async function numbers(backend: WebGPUBackend, region: Region): Promise<number[]> {
  return [...new Float32Array(await backend.read(region))];
}
