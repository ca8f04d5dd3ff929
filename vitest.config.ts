import { defineConfig } from "vitest/config";
import { builtWorker } from "./scripts/built-worker.mjs";

/** `vitest run --project webgpu` runs the GPU's tests alone, `--project cpu` all others. */
export default defineConfig({
  plugins: [builtWorker],
  test: {
    // What one run finds out about the machine must not decide what the next one tests.
    env: { ORIFLAMME_CACHE: "off" },
    // All cores: one is left idle by default, which takes a third longer on two (225 against 290 s).
    maxWorkers: "100%",
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
