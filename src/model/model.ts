import type { Backend } from "../backend.js";
import type { KeptType } from "../dtype.js";
import { Parameters, type Tensor } from "../tensor.js";
import type { Tokenizer } from "../tokenizer.js";
import { type ModelConfig, weightShapes, weightTypes } from "./config.js";
import { fillWeights, type LoadProgress } from "./fill-weights.js";
import { placeWeights } from "./placement.js";
import { ropeReach } from "./rope-frequencies.js";
import { RopeTables, rotaryOf } from "./rope-tables.js";
import { type StoredWeight, weightOfValues } from "./stored-weight.js";

/** Positions that the first rotary tables cover; longer sequences make longer ones. */
const FIRST_POSITIONS = 1024;

/** Layers that follow one another in one memory. */
export interface Stretch {
  readonly backend: Backend;
  readonly first: number;
  /** Behind the last. */
  readonly end: number;
}

/**
 * The weights of a transformer on a backend, and what its configuration and tokenizer say. One that is too large for
 * the backend's memory lies in several, whole layers in each; see `placeWeights`.
 */
export class Model {
  readonly #tables: RopeTables[] = [];
  /** All layers, in order. */
  readonly stretches: readonly Stretch[];

  /**
   * @param weights the tensors of `weightShapes(config)`; the model disposes of them
   * @param tokenizer null where the file had none: ids only
   */
  constructor(
    readonly config: ModelConfig,
    readonly weights: Parameters,
    readonly tokenizer: Tokenizer | null,
  ) {
    this.stretches = this.#findStretches();
    if (config.position.kind !== "rope") return;
    // Now, not in the first pass: there they would lie in the way of the arena, which grows in place.
    for (const { backend } of this.stretches) this.ropeTables(1, backend);
  }

  /** The first memory's, where a pass begins and ends. */
  get backend(): Backend {
    return this.weights.backend;
  }

  #findStretches(): Stretch[] {
    const stretches: Stretch[] = [];
    for (let layer = 0; layer < this.config.layers; layer++) {
      const backend = this.homeOf(layer);
      const last = stretches.at(-1);
      if (last?.backend === backend) stretches[stretches.length - 1] = { ...last, end: layer + 1 };
      else stretches.push({ backend, first: layer, end: layer + 1 });
    }
    return stretches;
  }

  /** In whose memory a layer lies, and all that goes with it; what belongs to none lies in the first. */
  homeOf(layer: number | undefined): Backend {
    const name = `layers.${layer}.attention_norm.weight`;
    return this.weights.has(name) ? this.weights.get(name).backend : this.backend;
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
    const shapes = weightShapes(config);
    const backendOf = placeWeights(backend, shapes, dtypes);
    const weights = new Parameters(backend, shapes, { dtypes, isFilled: true, backendOf });
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
   * Rotary tables of at least `length` positions, for a sequence of that length, in one memory. Shorter ones live on:
   * a tape may still read them.
   */
  ropeTables(length: number, home = this.backend): RopeTables {
    const { scaling } = rotaryOf(this.config);
    const reach = ropeReach(scaling, length);
    const found = this.#tables.findLast(
      (tables) =>
        tables.backend === home && tables.length >= length && ropeReach(scaling, tables.length) === reach,
    );
    if (found) return found;
    const most = Math.min(reach, Math.max(this.config.contextLength, length));
    const tables = new RopeTables(home, this.config, Math.min(most, Math.max(FIRST_POSITIONS, 2 * length)));
    this.#tables.push(tables);
    return tables;
  }

  dispose(): void {
    for (const tables of this.#tables) tables.dispose();
    this.weights.dispose();
  }
}
