// The model of the `decode` suite as a GGUF file: the same weights as ours.
//
//   node bench/peers/llama-gguf.mjs f32|q8_0|q4_0 FILE.gguf

import { writeFile } from "node:fs/promises";
import {
  decodeCases,
  ggufChunks,
  llamaConfig,
  llamaWeights,
  weightOfValues,
} from "../../dist/cli/bench/kit.js";

/** A vocabulary of that size that nobody uses: the bindings want to see one. */
function someVocabulary(size) {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).padStart(2, "0").toUpperCase()}>`);
  const special = ["<unk>", "<s>", "</s>"];
  const words = Array.from({ length: size - special.length - bytes.length }, (_, i) => `w${i}`);
  const [NORMAL, UNKNOWN, CONTROL, BYTE] = [1, 2, 3, 6];
  const tokens = [...special, ...bytes, ...words];
  return {
    ...{ kind: "llama", tokens, scores: tokens.map((_, i) => -i), prefixSpace: true, chatTemplate: null },
    types: [UNKNOWN, CONTROL, CONTROL, ...bytes.map(() => BYTE), ...words.map(() => NORMAL)],
    ...{ unknownId: 0, bosId: 1, addBos: true },
  };
}

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
