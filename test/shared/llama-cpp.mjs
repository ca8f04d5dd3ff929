// Opens GGUF files with llama.cpp, through node-llama-cpp where bench/peers has it installed, and prints a line of
// JSON for each job: the greedy tokens after `ids`, and the ids of each text.
//
//   node test/shared/llama-cpp.mjs '[{"path":"m.gguf","ids":[1,2],"count":4,"texts":["Once"]}]'

const { getLlama, LlamaLogLevel } = await import(
  new URL("../../bench/peers/node_modules/node-llama-cpp/dist/index.js", import.meta.url).href
);

const llama = await getLlama({
  ...{ gpu: false, build: "never", skipDownload: true, progressLogs: false },
  ...{ logLevel: LlamaLogLevel.error, maxThreads: 1 },
});

for (const { path, ids, count, texts } of JSON.parse(process.argv[2])) {
  const model = await llama.loadModel({ modelPath: path, useMmap: false });
  const greedy = await continuation(model, ids, count);
  const tokens = texts.map((text) => [...model.tokenize(text)]);
  process.stdout.write(`${JSON.stringify({ greedy, tokens })}\n`);
  await model.dispose();
}
process.exit(0);

/** Past the bindings' own loop, which wants texts. */
async function continuation(model, ids, count) {
  const context = await model.createContext({ contextSize: 256, threads: 1, flashAttention: false });
  const sequence = context.getSequence();
  const sampler = new llama._bindings.AddonSampler(model._model);
  sampler.applyConfig({ temperature: 0 });
  const bindings = context._ctx;
  const greedy = [];
  let position = 0;
  let pending = Uint32Array.from(ids);
  while (greedy.length < count) {
    bindings.initBatch(pending.length);
    const last = Uint32Array.of(pending.length - 1);
    const [logits] = bindings.addToBatch(sequence._sequenceId, position, pending, last);
    await bindings.decodeBatch();
    greedy.push(await bindings.sampleToken(logits, sampler));
    position += pending.length;
    pending = Uint32Array.of(greedy.at(-1));
  }
  await context.dispose();
  return greedy;
}
