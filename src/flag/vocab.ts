import { Adapter, type AdapterConfig, RowOverlay, type RowValues } from "../model/adapter.js";
import type { Overlay } from "../model/lora.js";
import type { Model } from "../model/model.js";
import { Random } from "../random.js";
import type { Calibration } from "./calibration.js";
import type { Decision } from "./decision.js";

/** Where the flag's row comes from before training. */
export type RowInit = "mean" | "reserved" | `copy:${string}` | `normal(${number})`;

/** How the flag enters the vocabulary. */
export interface RedFlagOptions {
  /** The text that stands for the token; `<rf>` by default. */
  readonly token?: string;
  /**
   * The first values of its row: `mean` of the existing rows (the default: it bounds the change that the longer
   * vocabulary makes), `reserved` (what the reused token has), `copy:<token>`, `normal(std)`.
   */
  readonly init?: RowInit;
  /** Take this token of the vocabulary, by its text or id, instead of appending one: nothing is resized. */
  readonly reuse?: string | number;
  /** For `normal(std)`. */
  readonly seed?: number;
}

/**
 * A model with the flag's row in its vocabulary. `reference` is the extended model before training; `overlay` is
 * what it has become. Both share the model's weights.
 */
export class FlaggedModel {
  #adapter: Adapter | undefined;

  constructor(
    readonly model: Model,
    /** The text that stands for the flag. */
    readonly token: string,
    readonly init: RowInit,
    /** The row before training. */
    readonly initial: RowValues,
    readonly reference: RowOverlay,
    /** The decision fitted to benign data, where there is one. */
    public calibration: Calibration | null = null,
  ) {}

  /** When the flag counts as raised where nobody says otherwise: as calibrated, else at P(flag) >= 0.5. */
  get decision(): Decision {
    return this.calibration?.decision ?? { kind: "threshold", level: 0.5 };
  }

  /** The flag's token id. */
  get flagId(): number {
    return this.initial.ids[0] as number;
  }

  get adapter(): Adapter | undefined {
    return this.#adapter;
  }

  get overlay(): Overlay {
    return this.#adapter ?? this.reference;
  }

  /** Gives the model a fresh adapter, in place of any that it had. */
  attach(config: AdapterConfig, seed: number): Adapter {
    this.#adapter?.dispose();
    this.#adapter = new Adapter(this.model, config, this.initial, new Random(seed));
    return this.#adapter;
  }

  /** Lets the rows go; the model stays. */
  dispose(): void {
    this.#adapter?.dispose();
    this.reference.dispose();
  }
}

/**
 * Adds the flag to a model's vocabulary: appends a row, takes an unused one behind the tokenizer's last token
 * where the matrix has such, or reuses a reserved token.
 * @throws RangeError where a token that is named does not exist, or the tokenizer has more tokens than the model
 */
export async function addRedFlag(model: Model, options: RedFlagOptions = {}): Promise<FlaggedModel> {
  const { token = "<rf>", reuse } = options;
  const init = options.init ?? "mean";
  const id = reuse === undefined ? newId(model) : tokenId(model, reuse);
  if (init === "reserved" && id >= model.config.vocabSize) {
    throw new RangeError("init: 'reserved' keeps a row that exists; name it with reuse");
  }
  const seed = options.seed ?? 0;
  const input = await initialRow(model, "embed.weight", init, id, seed);
  const output = model.config.tied ? input : await initialRow(model, "head.weight", init, id, seed + 1);
  const initial = { ids: [id], input, output };
  return new FlaggedModel(model, token, init, initial, new RowOverlay(model, initial));
}

/** The first id behind the tokenizer's last token: an unused row of the matrix, or the one after its last. */
function newId({ config, tokenizer }: Model): number {
  const id = tokenizer?.vocabSize ?? config.vocabSize;
  if (id <= config.vocabSize) return id;
  throw new RangeError(
    `the tokenizer has ${id} tokens, but the model's vocabulary only ${config.vocabSize}: name a token with reuse`,
  );
}

function tokenId(model: Model, token: string | number): number {
  const id = typeof token === "number" ? token : model.tokenizer?.tokenId(token);
  if (id === undefined || !Number.isInteger(id) || id < 0 || id >= model.config.vocabSize) {
    throw new RangeError(`'${token}' is no token of the model's vocabulary of ${model.config.vocabSize}`);
  }
  return id;
}

/** The first values of a row of the matrix `name`, computed in float64. */
async function initialRow(
  model: Model,
  name: string,
  init: RowInit,
  id: number,
  seed: number,
): Promise<Float32Array> {
  const width = model.config.hiddenSize;
  const normal = /^normal\((.+)\)$/.exec(init);
  if (normal) {
    const std = Number(normal[1]);
    if (!(std >= 0 && std < Infinity)) throw new RangeError(`init: '${init}' has no standard deviation`);
    const random = new Random(seed);
    return Float32Array.from({ length: width }, () => std * random.normal());
  }
  const table = await model.weight(name).read();
  const row = (index: number) => table.slice(index * width, (index + 1) * width);
  if (init === "reserved") return row(id);
  if (init.startsWith("copy:")) return row(tokenId(model, init.slice("copy:".length)));
  if (init !== "mean")
    throw new RangeError(`init must be mean, reserved, copy:<token> or normal(std), got '${init}'`);

  // Where the flag takes a row behind the tokenizer's last token, that row and those after it were never trained.
  const { vocabSize } = model.config;
  const existing = id < (model.tokenizer?.vocabSize ?? vocabSize) ? vocabSize : Math.min(id, vocabSize);
  const sum = new Float64Array(width);
  for (let i = 0; i < existing * width; i++)
    sum[i % width] = (sum[i % width] as number) + (table[i] as number);
  return Float32Array.from(sum, (value) => value / existing);
}
