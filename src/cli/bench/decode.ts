import type { Backend } from "../../backend.js";
import type { WeightType } from "../../dtype.js";
import { decode } from "../../generate/decode.js";
import { GREEDY } from "../../generate/sample.js";
import { Random } from "../../random.js";
import type { BenchCase } from "./case.js";
import { benchLlama, matrixWeights } from "./llama.js";
import type { Prepared } from "./serve.js";

/** The 15M shape: dim, layers, heads, kv heads, ffn, vocabulary; then tokens of the prompt, and after it. */
const SHAPE = [288, 6, 6, 6, 768, 32000, 16, 200] as const;
const [PROMPT, TOKENS] = [SHAPE[6], SHAPE[7]];
const CONTEXT = 512;

/** How weights are stored, and the bytes that one takes. */
const BYTES_A_WEIGHT = { f32: 4, f16: 2, bf16: 2, q8_0: 34 / 32, q4_0: 18 / 32 } as const;

/** The stored types that `decode` of this engine is measured with. */
export const DECODE_DTYPES: readonly string[] = Object.keys(BYTES_A_WEIGHT);

/** Greedy decoding; a pass is one token. It reads every weight once, so the memory bounds it. */
export const decodeCases: readonly BenchCase[] = Object.entries(BYTES_A_WEIGHT).map(([dtype, bytes]) => ({
  bench: "decode",
  shape: SHAPE,
  dtype,
  unit: "tokens/s",
  work: 1,
  demand: { of: "bandwidth", amount: matrixWeights(SHAPE) * bytes },
  // The ids; where weights are quantised, so are activations, by each in its own way.
  tolerance: dtype === "f32" ? 0 : null,
}));

export async function prepareDecode(backend: Backend, { shape, dtype }: BenchCase): Promise<Prepared> {
  const model = await benchLlama(backend, shape, CONTEXT, dtype as WeightType);
  const prompt = Array.from({ length: PROMPT }, (_, i) => i + 1);
  const tokens = (count: number) =>
    decode(model, prompt, { sampling: GREEDY, random: new Random(0), maxTokens: count, eosIds: [] });
  return {
    async sample() {
      const ids: number[] = [];
      for await (const step of tokens(8)) if (step.kind === "token") ids.push(step.id);
      return ids;
    },
    async measure() {
      const times: number[] = [];
      let last = performance.now();
      for await (const step of tokens(TOKENS + 1)) {
        const now = performance.now();
        if (step.kind === "token") times.push((now - last) / 1000);
        last = now;
      }
      // The first token comes with the whole prompt.
      return times.slice(1);
    },
    dispose: () => model.dispose(),
  };
}
