import type { Backend } from "../backend.js";
import type { KeptType } from "../dtype.js";
import { Parameters, type Tensor } from "../tensor.js";
import type { Tokenizer } from "../tokenizer.js";
import { type ModelConfig, weightShapes, weightTypes } from "./config.js";
import { fillWeights, type LoadProgress } from "./fill-weights.js";
import { ropeReach } from "./rope-frequencies.js";
import { RopeTables, rotaryOf } from "./rope-tables.js";
import { type StoredWeight, weightOfValues } from "./stored-weight.js";

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
   * Reads the weights one by one, piece by piece.
   * @param weightOf where a weight of ours lies, by its name
   * @param dtype what matrices are kept as: see `weightTypes`; `stored` keeps each as its file has it
   * @param onProgress called after every piece
   * @throws RangeError for a weight that `dtype` cannot hold
   */
  static async load(
    backend: Backend,
    config: ModelConfig,
    tokenizer: Tokenizer | null,
    weightOf: (name: string) => StoredWeight,
    dtype: KeptType = "stored",
    onProgress?: (progress: LoadProgress) => void,
  ): Promise<Model> {
    const storedType = (name: string) => {
      const weight = weightOf(name);
      return weight.keepAs ?? weight.dtype;
    };
    const dtypes = weightTypes(config, dtype === "stored" ? storedType : dtype);
    const weights = new Parameters(backend, weightShapes(config), { dtypes, isFilled: true });
    try {
      await fillWeights(weights, weightOf, onProgress);
    } catch (error) {
      weights.dispose();
      throw error;
    }
    return new Model(config, weights, tokenizer);
  }

  /** The same from values at hand: `read` gets our name of each weight. */
  static fromValues(
    backend: Backend,
    config: ModelConfig,
    tokenizer: Tokenizer | null,
    read: (name: string) => Promise<Float32Array>,
    dtype: KeptType = "stored",
  ): Promise<Model> {
    const shapes = weightShapes(config);
    const weightOf = (name: string) => weightOfValues(shapes.get(name) ?? [], () => read(name));
    return Model.load(backend, config, tokenizer, weightOf, dtype);
  }

  /** The weight of that name, as `weightShapes` spells it. */
  weight(name: string): Tensor {
    return this.weights.get(name);
  }

  /** The bias of that name, where the architecture has one. */
  bias(name: string): Tensor | undefined {
    return this.weights.has(name) ? this.weights.get(name) : undefined;
  }

  /**
   * Rotary tables of at least `length` positions, for a sequence of that length. Shorter ones live on: a tape may
   * still read them.
   */
  ropeTables(length: number): RopeTables {
    const { scaling } = rotaryOf(this.config);
    const reach = ropeReach(scaling, length);
    const found = this.#tables.findLast(
      (tables) => tables.length >= length && ropeReach(scaling, tables.length) === reach,
    );
    if (found) return found;
    const most = Math.min(reach, Math.max(this.config.contextLength, length));
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
