import type { Random } from "../random.js";
import { Parameters, type Tensor } from "../tensor.js";
import { linearLayers } from "./config.js";
import type { Lora, Overlay, TokenRows } from "./lora.js";
import type { Model } from "./model.js";
import { layerOf } from "./placement.js";

/** 2^32 / φ: its multiples are far from one another. */
const GOLDEN_RATIO = 0x9e3779b9;

/** The shape of an adapter: which layers it adds to, and how much. */
export interface AdapterConfig {
  readonly rank: number;
  /** The addition is scaled by alpha / rank. */
  readonly alpha: number;
  /** Names of linear layers, as `linearLayers` gives them. */
  readonly targets: readonly string[];
  /** Share of an addition's input that is dropped in training, in [0, 1); none where nothing is said. */
  readonly dropout?: number;
}

/** Values of token rows on the host. */
export interface RowValues {
  /** Token id of each row. */
  readonly ids: readonly number[];
  /** (rows, hidden) */
  readonly input: Float32Array;
  /** (rows, hidden); the same array where the model's embedding and head are tied. */
  readonly output: Float32Array;
}

/**
 * Trainable rows of the vocabulary and low-rank additions to linear layers, each in the memory of its layer: all that
 * training a frozen model changes.
 */
export class Adapter implements Overlay {
  readonly parameters: Parameters;
  readonly rows: TokenRows;
  readonly #loras = new Map<string, Lora>();

  /**
   * An adapter that changes nothing yet but the rows: every B is 0. A is uniform in ±1/√in, as PEFT has it.
   */
  constructor(
    readonly model: Model,
    readonly config: AdapterConfig,
    rows: RowValues,
    random: Random,
  ) {
    const known = new Set(linearLayers(model.config));
    const unknown = config.targets.find((name) => !known.has(name));
    if (unknown !== undefined) throw new RangeError(`targets: the model has no linear layer '${unknown}'`);
    const { dropout: rate = 0 } = config;
    if (!(rate >= 0 && rate < 1)) throw new RangeError(`dropout must be in [0, 1), got ${rate}`);

    const shapes = new Map<string, readonly number[]>();
    for (const name of config.targets) {
      const [out = 0, input = 0] = model.weight(`${name}.weight`).shape;
      shapes.set(`${name}.a`, [config.rank, input]);
      shapes.set(`${name}.b`, [out, config.rank]);
    }
    for (const [name, shape] of rowShapes(model, rows)) shapes.set(name, shape);
    const backendOf = (name: string) => model.homeOf(layerOf(name));
    this.parameters = new Parameters(model.backend, shapes, { backendOf });
    for (const name of config.targets) {
      const lora = this.#view(name);
      const bound = 1 / Math.sqrt(lora.a.shape[1] as number);
      lora.a.write(Float32Array.from({ length: lora.a.size }, () => (2 * random.uniform() - 1) * bound));
      this.#loras.set(name, lora);
    }
    this.rows = tokenRows(this.parameters, model, rows);
  }

  #view(name: string): Lora {
    return {
      a: this.parameters.get(`${name}.a`),
      b: this.parameters.get(`${name}.b`),
      scale: this.config.alpha / this.config.rank,
    };
  }

  lora(name: string): Lora | undefined {
    return this.#loras.get(name);
  }

  /**
   * The same with its dropout, each layer's mask its own.
   * @param seed of the masks, in [0, 2^32): the same in a block's second run as in its first
   */
  dropping(seed: number): Overlay {
    const { dropout: rate = 0, targets } = this.config;
    if (rate === 0) return this;
    return {
      rows: this.rows,
      lora: (name) => {
        const lora = this.lora(name);
        const place = targets.indexOf(name);
        return lora && { ...lora, dropout: { rate, seed: (seed + Math.imul(place, GOLDEN_RATIO)) >>> 0 } };
      },
    };
  }

  dispose(): void {
    this.parameters.dispose();
  }
}

/** Rows alone, over unchanged layers: the model that an adapter's training starts from and is compared with. */
export class RowOverlay implements Overlay {
  readonly #parameters: Parameters;
  readonly rows: TokenRows;

  constructor(model: Model, rows: RowValues) {
    this.#parameters = new Parameters(model.backend, new Map(rowShapes(model, rows)));
    this.rows = tokenRows(this.#parameters, model, rows);
  }

  lora(): undefined {
    return undefined;
  }

  dispose(): void {
    this.#parameters.dispose();
  }
}

/** Names and shapes of the parameters that hold rows. */
export function rowShapes(model: Model, { ids }: RowValues): [string, readonly number[]][] {
  const shape = [ids.length, model.config.hiddenSize];
  const names = model.config.tied ? ["rows.input"] : ["rows.input", "rows.output"];
  return names.map((name) => [name, shape]);
}

/** The rows among the parameters, filled with their values. */
export function tokenRows(parameters: Parameters, model: Model, values: RowValues): TokenRows {
  const input = parameters.get("rows.input");
  input.write(values.input);
  let output: Tensor = input;
  if (!model.config.tied) {
    output = parameters.get("rows.output");
    output.write(values.output);
  }
  return { ids: values.ids, input, output };
}
