import { defineConfig } from "vitest/config";

/** Workers can't load TypeScript, so they run what `npm run build` made of it. */
const builtWorker = {
  name: "built-worker",
  transform(code: string, id: string) {
    if (!id.endsWith("/src/backends/wasm/spawn-node.ts")) return undefined;
    return code.replace('"./worker.js"', '"../../../dist/backends/wasm/worker.js"');
  },
};

/** `vitest run --project webgpu` runs the GPU's tests alone, `--project cpu` all others. */
export default defineConfig({
  plugins: [builtWorker],
  test: {
    // What one run finds out about the machine must not decide what the next one tests.
    env: { ORIFLAMME_CACHE: "off" },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: [
      {
        extends: true,
        test: { name: "cpu", include: ["test/**/*.test.ts"], exclude: ["test/**/*.webgpu.test.ts"] },
      },
      {
        extends: true,
        test: { name: "webgpu", include: ["test/**/*.webgpu.test.ts"], fileParallelism: false },
      },
    ],
  },
});
