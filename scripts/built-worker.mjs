/** For Vite: workers can't load TypeScript, so they run what `npm run build` made of it. */
export const builtWorker = {
  name: "built-worker",
  transform(code, id) {
    if (!id.endsWith("/src/backends/wasm/spawn-node.ts")) return undefined;
    return code.replace('"./worker.js"', '"../../../dist/backends/wasm/worker.js"');
  },
};
