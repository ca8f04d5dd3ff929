import { execFile } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterEach, expect, test, vi } from "vitest";
import { createWebGPUBackend } from "../../src/backends/webgpu/device.js";
import { findNodeAdapter } from "../../src/backends/webgpu/node.js";
import { BackendError } from "../../src/errors.js";
import { fill } from "../../src/tape.js";
import { numbers, openBackend, regionOf } from "./device.js";

afterEach(() => vi.unstubAllEnvs());

test("a driver is found with nothing in the environment", async () => {
  vi.stubEnv("VK_DRIVER_FILES", undefined);
  vi.stubEnv("VK_ICD_FILENAMES", undefined);
  const { adapter } = await findNodeAdapter({});
  expect(adapter.info.device).not.toBe("null-backend");
  expect(adapter.limits.maxStorageBuffersPerShaderStage).toBeGreaterThanOrEqual(8);
});

test("a driver that the environment names and that does not load is the error", async () => {
  vi.stubEnv("VK_DRIVER_FILES", "/nowhere/icd.json");
  vi.stubEnv("VK_ICD_FILENAMES", "/nowhere/icd.json");
  await expect(findNodeAdapter({})).rejects.toThrow(
    /VK_DRIVER_FILES or VK_ICD_FILENAMES names does not load/,
  );
});

test("the null backend is refused", async () => {
  const { create } = await import("webgpu");
  const gpu = create(["backend=null"]);
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error("Dawn has no null backend here");
  await expect(createWebGPUBackend({ adapter })).rejects.toThrow(BackendError);
});

test("a shared device outlives the backend", async () => {
  const first = await openBackend();
  const second = await createWebGPUBackend({ device: first.device });
  second.dispose();
  const out = regionOf(first, 1);
  first.dispatch(fill, { out, n: 1, value: 4 });
  expect(await numbers(first, out)).toEqual([4]);
});

test("the description names the adapter", async () => {
  expect((await openBackend()).description).toMatch(/^webgpu \(.+\)$/);
});

test.each(["dispose", "keep"])("the process ends by itself: %s", async (mode) => {
  const module = pathToFileURL(join(import.meta.dirname, "../../src/backends/webgpu/device.ts"));
  const resolve = `import { registerHooks } from "node:module";
    registerHooks({ resolve: (name, context, next) =>
      next(name.startsWith(".") ? name.replace(/\\.js$/, ".ts") : name, context) });`;
  const script = `const { createWebGPUBackend } = await import(${JSON.stringify(module.href)});
    const backend = await createWebGPUBackend();
    const region = { block: backend.allocate(4), byteOffset: 0, byteLength: 4 };
    backend.write(region, Float32Array.of(1));
    for (let i = 0; i < 3; i++) { globalThis.gc(); await new Promise((wake) => setTimeout(wake, 10)); }
    console.log(String(new Float32Array(await backend.read(region))[0]));
    if (${mode === "dispose"}) backend.dispose();`;
  const flags = ["--expose-gc", "--experimental-transform-types", "--no-warnings", "--input-type=module"];
  const hook = `data:text/javascript,${encodeURIComponent(resolve)}`;
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    [...flags, "--import", hook, "--eval", script],
    { timeout: 60_000, cwd: join(import.meta.dirname, "../..") },
  );
  expect({ stdout, stderr }).toEqual({ stdout: "1\n", stderr: "" });
});
