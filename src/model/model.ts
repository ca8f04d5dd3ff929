import type { Backend } from "../backend.js";
import type { WeightType } from "../dtype.js";
import { Parameters, type Tensor } from "../tensor.js";
import type { Tokenizer } from "../tokenizer.js";
import { type ModelConfig, weightShapes, weightTypes } from "./config.js";
import { RopeTables } from "./rope-tables.js";

/** Positions that the first rotary tables cover; longer sequences make longer ones. */
const FIRST_POSITIONS = 1024;

/** The weights of a transformer on a backend, and what its configuration and tokenizer say. */
export class Model {
  readonly #tables: RopeTables[] = [];

  /**
   * @param weights the tensors of `weightShapes(config)`; the model disposes of them
   * @param tokenizer null where the file had none: ids only
   */
  constructor(
    readonly config: ModelConfig,
    readonly weights: Parameters,
    readonly tokenizer: Tokenizer | null,
  ) {
    // Now, not in the first pass: there they would lie in the way of the arena, which grows in place.
    if (config.position.kind === "rope") this.ropeTables(1);
  }

  get backend(): Backend {
    return this.weights.backend;
  }

  /**
   * Reads the weights one by one through `read`, which gets our name of each.
   * @param dtype what matrices are stored as: see `weightTypes`
   * @throws RangeError for a weight that `dtype` cannot hold
   */
  static async load(
    backend: Backend,
    config: ModelConfig,
    tokenizer: Tokenizer | null,
    read: (name: string) => Promise<Float32Array>,
    dtype: WeightType = "f32",
  ): Promise<Model> {
    const weights = new Parameters(backend, weightShapes(config), { dtypes: weightTypes(config, dtype) });
    try {
      for (const [name, tensor] of weights.entries()) {
        const values = await read(name);
        try {
          tensor.write(values);
        } catch (cause) {
          throw new RangeError(`weight '${name}': ${(cause as Error).message}`, { cause });
        }
      }
    } catch (error) {
      weights.dispose();
      throw error;
    }
    return new Model(config, weights, tokenizer);
  }

  /** The weight of that name, as `weightShapes` spells it. */
  weight(name: string): Tensor {
    return this.weights.get(name);
  }

  /** The bias of that name, where the architecture has one. */
  bias(name: string): Tensor | undefined {
    return this.weights.has(name) ? this.weights.get(name) : undefined;
  }

  /** Rotary tables for at least `length` positions. Shorter ones live on: a tape may still read them. */
  ropeTables(length: number): RopeTables {
    const last = this.#tables.at(-1);
    if (last && last.length >= length) return last;
    const most = Math.max(this.config.contextLength, length);
    const tables = new RopeTables(
      this.backend,
      this.config,
      Math.min(most, Math.max(FIRST_POSITIONS, 2 * length)),
    );
    this.#tables.push(tables);
    return tables;
  }

  dispose(): void {
    for (const tables of this.#tables) tables.dispose();
    this.weights.dispose();
  }
}
