// Greedy decoding by llama.cpp through node-llama-cpp, timed token by token.

/** The library on the CPU, with as many threads. */
export async function openLlama(threads) {
  const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
  return getLlama({
    ...{ gpu: false, build: "never", skipDownload: true, progressLogs: false },
    ...{ logLevel: LlamaLogLevel.error, maxThreads: threads },
  });
}

/** A model of a GGUF file, ready to decode. */
export async function openDecoder(llama, { modelPath, contextSize, threads }) {
  const model = await llama.loadModel({ modelPath, useMmap: false });
  // Flash attention is for long contexts: without it 216 positions take a fifth less time (measured).
  const context = await model.createContext({
    ...{ contextSize, threads, flashAttention: false, batchSize: contextSize },
  });
  const sequence = context.getSequence();
  const sampler = new llama._bindings.AddonSampler(model._model);
  sampler.applyConfig({ temperature: 0 });
  return {
    /**
     * Greedy tokens after a prompt, and the seconds that each took; the first comes with the whole prompt. It goes to
     * the bindings, as `sequence.evaluate` does: that costs up to 0.2 ms a token more (measured), and llama.cpp is not
     * to answer for it.
     */
    async decode(prompt, count) {
      const bindings = context._ctx;
      bindings.disposeSequence(sequence._sequenceId);
      const ids = [];
      const times = [];
      let position = 0;
      let pending = Uint32Array.from(prompt);
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
    },
    async dispose() {
      await context.dispose();
      await model.dispose();
    },
  };
}
