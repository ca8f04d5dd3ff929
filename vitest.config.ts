import { defineConfig } from "vitest/config";

/** `vitest run --project webgpu` runs the GPU's tests alone, `--project cpu` all others. */
export default defineConfig({
  test: {
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
