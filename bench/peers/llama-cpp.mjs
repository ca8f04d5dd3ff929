import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serve } from "../../dist/cli/bench/kit.js";
import { openDecoder, openLlama } from "./llama-decoder.mjs";
import { llamaGguf } from "./llama-gguf.mjs";
import { versionOf } from "./version.mjs";

const CONTEXT = 512;
const { threads } = JSON.parse(process.argv[2]);

await serve(async () => {
  const llama = await openLlama(threads);
  return {
    description: `node-llama-cpp ${await versionOf("node-llama-cpp")}, CPU`,
    prepare: (benchCase) => prepareDecode(llama, benchCase),
  };
});

async function prepareDecode(llama, { shape, dtype }) {
  const [prompt, tokens] = shape.slice(6);
  const folder = await mkdtemp(join(tmpdir(), "oriflamme-bench-"));
  const modelPath = join(folder, "model.gguf");
  let decoder;
  try {
    await writeFile(modelPath, llamaGguf(shape, CONTEXT, dtype));
    decoder = await openDecoder(llama, { modelPath, contextSize: CONTEXT, threads });
  } finally {
    await rm(folder, { recursive: true });
  }
  const ids = Array.from({ length: prompt }, (_, i) => i + 1);
  return {
    sample: async () => (await decoder.decode(ids, 8)).ids,
    // The first token comes with the whole prompt.
    measure: async () => (await decoder.decode(ids, tokens + 1)).times.slice(1),
    dispose: () => decoder.dispose(),
  };
}
