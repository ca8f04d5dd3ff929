// A small base model, trained from nothing on documents that are made up as it goes.

import { initialise, LLAMA_BLOCKS, languageLoss, Random, train } from "oriflamme";

/** Standard deviation that `initialise` draws with: GPT-2's. */
const INITIAL_STD = 0.02;

/**
 * Scales fresh weights to the standard deviation 1/√hidden. At widths near a hundred 0.02 leaves attention so flat
 * that copying from the context is learned late: on an earlier form of the corpus of in-context.mjs 700 steps ended
 * at 1.42 nats a token with this scale (lr 4e-3), and at 1.96 without it (lr 1e-2); measured.
 */
async function widen(model) {
  const factor = 1 / Math.sqrt(model.config.hiddenSize) / INITIAL_STD;
  for (const [name, weight] of model.weights.entries()) {
    if (/norm\.weight$/.test(name)) continue;
    const values = await weight.read();
    weight.write(values.map((value) => factor * value));
  }
}

/**
 * @typedef {object} BaseOptions
 * @property {import("oriflamme").Tokenizer} tokenizer
 * @property {(random: Random) => readonly number[]} document ids of a new document, without the tokens around it
 * @property {number} contextLength tokens of a window, and of the model's context
 * @property {number} hiddenSize
 * @property {number} layers
 * @property {number} heads
 * @property {number} steps
 * @property {number} batch windows a step
 * @property {number} lr
 * @property {number} seed of the weights and of the documents
 */

/** Batches of windows: each begins with a document and holds as many as fit, the last one cut. */
function windows({ tokenizer, document, contextLength, batch }, random) {
  return {
    next() {
      const ids = new Uint32Array(batch * contextLength);
      for (let row = 0; row < batch; row++) {
        const window = [];
        while (window.length < contextLength) {
          window.push(tokenizer.bosId, ...document(random), tokenizer.eosId);
        }
        ids.set(window.slice(0, contextLength), row * contextLength);
      }
      return { ids, batch };
    },
    get state() {
      return random.state;
    },
    set state(state) {
      random.state = state;
    },
  };
}

/**
 * Trains a Llama of that size.
 * @param {import("oriflamme").Backend} backend
 * @param {BaseOptions} options
 * @returns {Promise<{model: import("oriflamme").Model, loss: number, seconds: number}>} with the mean loss of the
 *   last tenth of the steps, in nats a token
 */
export async function trainBase(backend, options) {
  const { tokenizer, contextLength, hiddenSize, layers, heads, steps, lr, seed } = options;
  const start = performance.now();
  const model = initialise(
    backend,
    {
      architecture: "llama",
      vocabSize: tokenizer.vocabSize,
      contextLength,
      hiddenSize,
      layers,
      heads,
      kvHeads: heads,
      headDim: hiddenSize / heads,
      intermediateSize: 3 * hiddenSize,
      ...LLAMA_BLOCKS,
      normEps: 1e-5,
      position: { kind: "rope", theta: 10000, scaling: { kind: "none" } },
      tied: true,
      bosId: tokenizer.bosId,
      eosIds: [tokenizer.eosId],
    },
    tokenizer,
    new Random(seed),
  );
  await widen(model);
  const batches = windows(options, new Random(seed + 1));
  const schedule = { steps, lr, warmup: Math.ceil(steps / 20), decay: "cosine", accumulate: 1, clip: 1 };
  const optimiser = { weightDecay: 0.1, beta2: 0.95 };
  const last = [];
  for await (const { step, loss, tokensPerSecond } of train(model.weights, languageLoss(model), batches, {
    ...schedule,
    ...optimiser,
  })) {
    if (step > 0.9 * steps) last.push(loss);
    if (step % 100 === 0) {
      console.error(`base, step ${step}: loss ${loss.toFixed(3)}, ${Math.round(tokensPerSecond)} tokens/s`);
    }
  }
  const loss = last.reduce((sum, value) => sum + value, 0) / last.length;
  return { model, loss, seconds: (performance.now() - start) / 1000 };
}
