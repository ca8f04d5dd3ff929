import type { Backend } from "../../backend.js";
import { languageLoss } from "../../train/language.js";
import { type TrainStep, train } from "../../train/trainer.js";
import type { BenchCase } from "./case.js";
import { benchLlama, matrixWeights } from "./llama.js";
import { noiseIds } from "./noise.js";
import { type Prepared, timed } from "./serve.js";

/** The three models of the published comparison: dim, layers, heads, kv heads, ffn, vocabulary, batch, length. */
const SHAPES = [
  [64, 5, 8, 4, 172, 512, 8, 256],
  [288, 6, 6, 6, 768, 4096, 4, 256],
  [512, 8, 8, 8, 1376, 8192, 4, 256],
] as const;

/** AdamW as PyTorch has it by default but without decay, clipped at norm 1. */
const OPTIONS = { lr: 1e-4, warmup: 0, decay: "constant", accumulate: 1, clip: 1 } as const;

/** A whole step of training: forward, backward, clipping, AdamW. */
export const trainCases: readonly BenchCase[] = SHAPES.map((shape) => {
  const [dim, layers, , , , , batch, length] = shape;
  const tokens = batch * length;
  // A product and its two gradients; and the causal half of attention's two products and their four gradients.
  const flops = tokens * (6 * matrixWeights(shape) + 6 * layers * dim * length);
  return {
    bench: "train",
    shape,
    dtype: "f32",
    unit: "tokens/s",
    work: tokens,
    demand: { of: "peak", amount: flops },
    tolerance: 1e-3,
  };
});

export async function prepareTrain(backend: Backend, { shape }: BenchCase): Promise<Prepared> {
  const [vocab = 0, batch = 0, length = 0] = shape.slice(5);
  const model = await benchLlama(backend, shape, length);
  const ids = noiseIds(batch * length, vocab, 0);
  const batches = { next: () => ({ ids, batch }), state: null };
  const steps = train(model.weights, languageLoss(model), batches, {
    ...OPTIONS,
    steps: Number.MAX_SAFE_INTEGER,
  });
  const step = async () => (await steps.next()).value as TrainStep;
  return {
    // The second loss tells of the gradients and of the optimiser.
    sample: async () => [(await step()).loss, (await step()).loss],
    measure: timed(async () => void (await step())),
    dispose() {
      void steps.return(undefined);
      model.dispose();
    },
  };
}
