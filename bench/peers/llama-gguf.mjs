// The model of the `decode` suite as a GGUF file: the same weights as ours.
//
//   node bench/peers/llama-gguf.mjs f32|q8_0|q4_0 FILE.gguf

import { writeFile } from "node:fs/promises";
import {
  decodeCases,
  ggufChunks,
  llamaConfig,
  llamaWeights,
  someVocabulary,
  weightOfValues,
} from "../../dist/cli/bench/kit.js";

/** The file's bytes in chunks, all matrices stored as `type`, as our own model has them. */
export function llamaGguf(shape, contextLength, type) {
  const config = { ...llamaConfig(shape, contextLength), bosId: 1, eosIds: [2] };
  const weights = new Map([...llamaWeights(config)].map((weight) => [weight.name, weight]));
  const weight = (name) => {
    const { shape, values } = weights.get(name);
    return weightOfValues(shape, async () => values);
  };
  const vocabulary = someVocabulary(config.vocabSize);
  return ggufChunks({ config, weight }, { type, outputType: type, name: "oriflamme bench", vocabulary });
}

if (import.meta.main) {
  const [type, path] = process.argv.slice(2);
  await writeFile(path, llamaGguf(decodeCases[0].shape, 512, type));
}
