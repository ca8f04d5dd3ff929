// What every runtime does with the package as it ships: Node, Deno, Bun, a page and a page's Worker load this file.

import {
  Arena,
  attention,
  createBackend,
  initialise,
  LLAMA_BLOCKS,
  languageLoss,
  matmul,
  Random,
  softmax,
  Tape,
  train,
} from "../../../dist/index.js";

const CONFIG = {
  architecture: "llama",
  ...{ hiddenSize: 32, layers: 2, heads: 4, kvHeads: 2, headDim: 8, intermediateSize: 64 },
  ...{ vocabSize: 96, contextLength: 64, normEps: 1e-5 },
  position: { kind: "rope", theta: 10000, scaling: { kind: "none" } },
  ...LLAMA_BLOCKS,
  ...{ tied: true, bosId: null, eosIds: [] },
};

/** The bits of some numbers as 8 hexadecimal digits, by FNV-1a. */
function digest(values) {
  let hash = 0x811c9dc5;
  for (const byte of new Uint8Array(values.buffer, values.byteOffset, values.byteLength)) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return (hash >>> 0).toString(16).padStart(8, "0");
}

function noise(length) {
  const random = new Random(length);
  return Float32Array.from({ length }, () => random.uniform() - 0.5);
}

async function product(backend) {
  const arena = new Arena(backend);
  const tape = new Tape(arena, false);
  const [a, b] = [tape.from(noise(150 * 190), [150, 190]), tape.from(noise(190 * 170), [190, 170])];
  const bits = digest(await softmax(tape, matmul(tape, a, b)).read());
  arena.dispose();
  return bits;
}

async function attentionWithBackward(backend) {
  const arena = new Arena(backend);
  const tape = new Tape(arena);
  const shape = [2, 96, 4, 16];
  const qkv = [1, 2, 3].map((seed) => tape.from(noise(2 * 96 * 4 * 16 + seed).subarray(seed), shape));
  for (const x of qkv) x.requiresGrad = true;
  const out = attention(tape, ...qkv);
  out.grad = tape.from(noise(2 * 96 * 4 * 16), shape);
  tape.backward();
  const bits = [];
  for (const tensor of [out, ...qkv.map((x) => x.grad)]) bits.push(digest(await tensor.read()));
  arena.dispose();
  return bits;
}

async function training(backend) {
  const model = initialise(backend, CONFIG, null, new Random(1));
  const random = new Random(2);
  const ids = Uint32Array.from({ length: 4 * 64 }, () => random.below(CONFIG.vocabSize));
  const options = { steps: 3, lr: 1e-2, warmup: 0, decay: "constant", accumulate: 1, clip: 1 };
  const losses = [];
  for await (const { loss } of train(
    model.weights,
    languageLoss(model),
    { next: () => ({ ids, batch: 4 }), state: null },
    options,
  )) {
    losses.push(loss);
  }
  const bits = digest(await model.weights.all.read());
  model.dispose();
  return { losses, bits };
}

/**
 * Computes on an engine with that many threads, once all have come up, then on a second memory of it, and disposes of
 * it.
 * @param keep leaves the engine as it is instead
 * @param expected threads that the engine must come to; it stays alone where this is 1
 * @param whileUp called before the engine is disposed of
 */
export async function compute({ keep = false, ...options }, expected, whileUp = async () => {}) {
  const backend = await createBackend({ kind: "wasm", ...options });
  const whenUp = async () => {
    while (backend.threadCount < expected) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  await whenUp();
  const computed = {
    product: await product(backend),
    attention: await attentionWithBackward(backend),
    training: await training(backend),
  };
  const [, second] = backend.openMemories(2);
  await whenUp();
  const result = { ...computed, elsewhere: await product(second), threads: backend.threadCount };
  await whileUp(backend);
  if (!keep) backend.dispose();
  return { ...result, threadsAfter: backend.threadCount };
}
