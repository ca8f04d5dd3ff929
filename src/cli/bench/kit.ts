// What the contenders' programs in `bench/` build on: one entry of the bundle for all.

export { ggufChunks, writeGguf } from "../../formats/gguf-write.js";
export { weightShapes } from "../../model/config.js";
export { weightOfValues } from "../../model/stored-weight.js";
export { decodeCases } from "./decode.js";
export { llamaConfig, llamaWeights, someVocabulary } from "./llama.js";
export { noise, noiseIds } from "./noise.js";
export { pick, serve, timed } from "./serve.js";
