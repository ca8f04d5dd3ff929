import type { Backend } from "../backend.js";
import { Parameters, type Tensor } from "../tensor.js";
import type { ModelConfig, RopeScaling } from "./config.js";

/** Angles a position advances by, for each pair of a head: (head_dim / 2), in float64. */
export function ropeFrequencies(headDim: number, theta: number, scaling: RopeScaling): Float64Array {
  return Float64Array.from({ length: headDim / 2 }, (_, i) => scaled(theta ** ((-2 * i) / headDim), scaling));
}

function scaled(frequency: number, scaling: RopeScaling): number {
  switch (scaling.kind) {
    case "none":
      return frequency;
    case "linear":
      return frequency / scaling.factor;
    case "llama3": {
      // A wave that fits `highFreqFactor` times into the original context is kept, one that does not fit
      // `lowFreqFactor` times is stretched, and the weight of the two moves linearly between.
      const turns = (scaling.originalContextLength * frequency) / (2 * Math.PI);
      const { lowFreqFactor: low, highFreqFactor: high } = scaling;
      const keep = Math.min(1, Math.max(0, (turns - low) / (high - low)));
      return keep * frequency + ((1 - keep) * frequency) / scaling.factor;
    }
  }
}

/** The cosines and sines of positions 0 … length - 1, each (length, head_dim / 2). */
export class RopeTables {
  readonly #parameters: Parameters;
  readonly cos: Tensor;
  readonly sin: Tensor;

  constructor(
    backend: Backend,
    config: ModelConfig,
    readonly length: number,
  ) {
    if (config.position.kind !== "rope") throw new TypeError("ropeTables: the model has learned positions");
    const frequencies = ropeFrequencies(config.headDim, config.position.theta, config.position.scaling);
    const half = frequencies.length;
    const shape = [length, half];
    this.#parameters = new Parameters(
      backend,
      new Map([
        ["cos", shape],
        ["sin", shape],
      ]),
      { use: "tables" },
    );
    this.cos = this.#parameters.get("cos");
    this.sin = this.#parameters.get("sin");
    const angle = (i: number) => Math.floor(i / half) * (frequencies[i % half] ?? 0);
    this.cos.write(Float32Array.from({ length: length * half }, (_, i) => Math.cos(angle(i))));
    this.sin.write(Float32Array.from({ length: length * half }, (_, i) => Math.sin(angle(i))));
  }

  dispose(): void {
    this.#parameters.dispose();
  }
}
