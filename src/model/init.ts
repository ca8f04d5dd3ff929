import type { Backend } from "../backend.js";
import type { WeightType } from "../dtype.js";
import type { Random } from "../random.js";
import { Parameters, sizeOf } from "../tensor.js";
import type { Tokenizer } from "../tokenizer.js";
import { type ModelConfig, weightShapes, weightTypes } from "./config.js";
import { Model } from "./model.js";
import { placeWeights } from "./placement.js";

/** Standard deviation of fresh weights, as GPT-2 has it. */
const STD = 0.02;

/**
 * A model with fresh weights: normal(0.02), those that write into the residual stream scaled by 1/√(2 · layers)
 * (Radford et al. 2019), norms 1, biases 0.
 * @param dtype what matrices are stored as: see `weightTypes`
 */
export function initialise(
  backend: Backend,
  config: ModelConfig,
  tokenizer: Tokenizer | null,
  random: Random,
  dtype: WeightType = "f32",
): Model {
  const shapes = weightShapes(config);
  const dtypes = weightTypes(config, dtype);
  const weights = new Parameters(backend, shapes, {
    dtypes,
    backendOf: placeWeights(backend, shapes, dtypes),
  });
  const residual = STD / Math.sqrt(2 * config.layers);
  for (const [name, tensor] of weights.entries()) {
    if (name.endsWith(".bias")) continue;
    if (/norm\.weight$/.test(name)) {
      tensor.write(new Float32Array(tensor.size).fill(1));
      continue;
    }
    const std = /\.(output|down)\.weight$/.test(name) ? residual : STD;
    tensor.write(Float32Array.from({ length: sizeOf(tensor.shape) }, () => std * random.normal()));
  }
  return new Model(config, weights, tokenizer);
}
