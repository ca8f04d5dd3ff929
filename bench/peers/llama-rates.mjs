// llama.cpp's part of `bench/llama-1b.ts`: seconds of each token of one greedy run, as JSON.
//
//   node bench/peers/llama-rates.mjs FILE.gguf '{"prompt":256,"tokens":32,"threads":1}'

import { openDecoder, openLlama } from "./llama-decoder.mjs";
import { versionOf } from "./version.mjs";

const [modelPath, settings] = process.argv.slice(2);
const { prompt, tokens, threads } = JSON.parse(settings);
const llama = await openLlama(threads);
const decoder = await openDecoder(llama, { modelPath, contextSize: prompt + tokens + 8, threads });
const ids = Array.from({ length: prompt }, (_, i) => i + 1);
await decoder.decode(ids.slice(0, 8), 2);
const { times } = await decoder.decode(ids, tokens + 1);
console.log(JSON.stringify({ description: `node-llama-cpp ${await versionOf("node-llama-cpp")}`, times }));
await decoder.dispose();
await llama.dispose();
