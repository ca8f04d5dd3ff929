import { Parameters, type Tensor } from "../tensor.js";
import { type RowValues, rowShapes, tokenRows } from "./adapter.js";
import { weightShapes } from "./config.js";
import type { Overlay, TokenRows } from "./lora.js";
import type { Model } from "./model.js";
import { layerOf } from "./placement.js";

/**
 * Trainable rows of the vocabulary and all weights of a model, over the model that they began as. That
 * one stays as it was, since divergences are measured from it: the weights are in memory twice, once as the model
 * stores them and once in f32.
 */
export class FullTuning implements Overlay {
  /** The weights by the model's names, and `rows.input`, `rows.output`. */
  readonly parameters: Parameters;
  readonly rows: TokenRows;

  private constructor(parameters: Parameters, rows: TokenRows) {
    this.parameters = parameters;
    this.rows = rows;
  }

  /** @param read gives the first values of a weight; those of the model where nothing is said */
  static async of(
    model: Model,
    rows: RowValues,
    read: (name: string) => Promise<Float32Array> = (name) => model.weight(name).read(),
  ): Promise<FullTuning> {
    const weights = weightShapes(model.config);
    const shapes = new Map([...weights, ...rowShapes(model, rows)]);
    const backendOf = (name: string) => model.homeOf(layerOf(name));
    const parameters = new Parameters(model.backend, shapes, { backendOf });
    try {
      for (const name of weights.keys()) parameters.get(name).write(await read(name));
      return new FullTuning(parameters, tokenRows(parameters, model, rows));
    } catch (error) {
      parameters.dispose();
      throw error;
    }
  }

  lora(): undefined {
    return undefined;
  }

  weight(name: string): Tensor | undefined {
    return this.parameters.has(name) ? this.parameters.get(name) : undefined;
  }

  dispose(): void {
    this.parameters.dispose();
  }
}
