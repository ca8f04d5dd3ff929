import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serve } from "../../dist/cli/bench/kit.js";
import { llamaGguf } from "./llama-gguf.mjs";
import { versionOf } from "./version.mjs";

const CONTEXT = 512;
const { threads } = JSON.parse(process.argv[2]);

await serve(async () => {
  const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
  const llama = await getLlama({
    ...{ gpu: false, build: "never", skipDownload: true, progressLogs: false },
    ...{ logLevel: LlamaLogLevel.error, maxThreads: threads },
  });
  return {
    description: `node-llama-cpp ${await versionOf("node-llama-cpp")}, CPU`,
    prepare: (benchCase) => prepareDecode(llama, benchCase),
  };
});

async function prepareDecode(llama, { shape, dtype }) {
  const [prompt, tokens] = shape.slice(6);
  const folder = await mkdtemp(join(tmpdir(), "oriflamme-bench-"));
  const modelPath = join(folder, "model.gguf");
  let model;
  try {
    await writeFile(modelPath, llamaGguf(shape, CONTEXT, dtype));
    model = await llama.loadModel({ modelPath, useMmap: false });
  } finally {
    await rm(folder, { recursive: true });
  }
  // Flash attention is for long contexts: without it these 216 positions take a fifth less time (measured).
  const context = await model.createContext({ contextSize: CONTEXT, threads, flashAttention: false });
  const sequence = context.getSequence();
  const sampler = new llama._bindings.AddonSampler(model._model);
  sampler.applyConfig({ temperature: 0 });
  const promptIds = Uint32Array.from({ length: prompt }, (_, i) => i + 1);

  /**
   * Greedy tokens, and the seconds that each took. It goes to the bindings, as `sequence.evaluate` does: that costs
   * up to 0.2 ms a token more (measured), and llama.cpp is not to answer for it.
   */
  async function decode(count) {
    const bindings = context._ctx;
    bindings.disposeSequence(sequence._sequenceId);
    const ids = [];
    const times = [];
    let position = 0;
    let pending = promptIds;
    while (ids.length < count) {
      const start = performance.now();
      bindings.initBatch(pending.length);
      const lastIndex = Uint32Array.of(pending.length - 1);
      const [logits] = bindings.addToBatch(sequence._sequenceId, position, pending, lastIndex);
      await bindings.decodeBatch();
      const id = await bindings.sampleToken(logits, sampler);
      times.push((performance.now() - start) / 1000);
      ids.push(id);
      position += pending.length;
      pending = Uint32Array.of(id);
    }
    return { ids, times };
  }
  return {
    sample: async () => (await decode(8)).ids,
    // The first token comes with the whole prompt.
    measure: async () => (await decode(tokens + 1)).times.slice(1),
    async dispose() {
      await context.dispose();
      await model.dispose();
    },
  };
}
