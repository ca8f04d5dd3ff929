// The page's side of model-cache.test.ts: functions that the test calls.

import { clearModelCache, createBackend, loadModel } from "../../dist/index.js";

/**
 * Loads a model: the beginning of its embedding, or the error, and where the download of its weights stood first and
 * last.
 */
globalThis.load = async (url, { cache, abort }) => {
  const backend = await createBackend({ kind: "wasm", threads: 1, deterministic: true });
  const controller = new AbortController();
  const progress = [];
  globalThis.loaded = 0;
  const onDownload = (file) => {
    if (!file.url.endsWith("model.safetensors")) return;
    progress.push(file.loaded);
    globalThis.loaded = file.loaded;
    if (abort) controller.abort();
  };
  const ends = () => [progress[0], progress.at(-1)];
  try {
    const model = await loadModel(url, { backend, cache, signal: controller.signal, onDownload });
    return { values: [...(await model.weight("embed.weight").read())].slice(0, 8), progress: ends() };
  } catch (error) {
    return { error: String(error), progress: ends() };
  } finally {
    backend.dispose();
  }
};

globalThis.clear = clearModelCache;
