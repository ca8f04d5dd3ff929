import { Adapter, type AdapterConfig, RowOverlay, type RowValues } from "../model/adapter.js";
import { FullTuning } from "../model/full-tuning.js";
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
   * A flag of its own for each of these categories of harm, `<rf:violence>` for `violence`: the example's
   * `category` says which one is its target. `other`, where it is listed, takes what no other category does.
   * P(flag) is the sum over them. By default one flag stands for all harm.
   */
  readonly categories?: readonly string[];
  /**
   * The first values of its row: `mean` of the existing rows (the default: it bounds the change that the longer
   * vocabulary makes), `reserved` (what the reused token has), `copy:<token>`, `normal(std)`.
   */
  readonly init?: RowInit;
  /**
   * Take this token of the vocabulary, by its text or id, instead of appending one: nothing is resized. A list of
   * them, one for each category, where there are categories.
   */
  readonly reuse?: string | number | readonly (string | number)[];
  /** For `normal(std)`. */
  readonly seed?: number;
}

/** The category that takes every example which no other does. */
const OTHER = "other";

/**
 * A model with the flag's row in its vocabulary, or a row for each category. `reference` is the extended model
 * before training; `overlay` is what it has become. Both share the model's weights.
 */
export class FlaggedModel {
  #tuning: Adapter | FullTuning | undefined;

  constructor(
    readonly model: Model,
    /** The text that stands for the flag; with categories, what the texts of their flags are made from. */
    readonly token: string,
    readonly init: RowInit,
    /** The rows before training. */
    readonly initial: RowValues,
    readonly reference: RowOverlay,
    /** The decision fitted to benign data, where there is one. */
    public calibration: Calibration | null = null,
    /** The category of each flag, in the order of `flagIds`; empty where one flag stands for all. */
    readonly categories: readonly string[] = [],
    /** Of a row that began as `normal(std)`. */
    readonly seed = 0,
  ) {}

  /** When the flag counts as raised where nobody says otherwise: as calibrated, else at P(flag) >= 0.5. */
  get decision(): Decision {
    return this.calibration?.decision ?? { kind: "threshold", level: 0.5 };
  }

  /** The flag's token id; with categories, that of the first. */
  get flagId(): number {
    return this.initial.ids[0] as number;
  }

  /** The token ids of all flags. */
  get flagIds(): readonly number[] {
    return this.initial.ids;
  }

  /** The texts of all flags, in the order of `flagIds`. */
  get flagTexts(): readonly string[] {
    return flagTexts(this.token, this.categories);
  }

  isFlag(id: number): boolean {
    return this.flagIds.includes(id);
  }

  /** The category of a flag's id; null where one flag stands for all, or the id is no flag. */
  categoryOf(id: number): string | null {
    return this.categories[this.flagIds.indexOf(id)] ?? null;
  }

  /** The id of the flag that is an example's target; undefined where its category has none. */
  flagFor(category: string | undefined): number | undefined {
    if (this.categories.length === 0) return this.flagId;
    const own = category === undefined ? -1 : this.categories.indexOf(category);
    return this.flagIds[own >= 0 ? own : this.categories.indexOf(OTHER)];
  }

  /** What training changes: low-rank additions or all weights, and the rows. */
  get tuning(): Adapter | FullTuning | undefined {
    return this.#tuning;
  }

  /** The low-rank additions, where these are what training changes. */
  get adapter(): Adapter | undefined {
    return this.#tuning instanceof Adapter ? this.#tuning : undefined;
  }

  get overlay(): Overlay {
    return this.#tuning ?? this.reference;
  }

  /** Gives the model a fresh adapter, in place of what had been trained. */
  attach(config: AdapterConfig, seed: number): Adapter {
    this.#tuning?.dispose();
    const adapter = new Adapter(this.model, config, this.initial, new Random(seed));
    this.#tuning = adapter;
    return adapter;
  }

  /**
   * Gives the model weights of its own to train, in place of what had been trained.
   * @param rows the first values of the flag's rows, those before training where nothing is said
   * @param read gives the first values of a weight; those of the model where nothing is said
   */
  async attachFull(
    rows: RowValues = this.initial,
    read?: (name: string) => Promise<Float32Array>,
  ): Promise<FullTuning> {
    this.#tuning?.dispose();
    this.#tuning = undefined;
    const tuning = await FullTuning.of(this.model, rows, read);
    this.#tuning = tuning;
    return tuning;
  }

  /** Lets the rows go; the model stays. */
  dispose(): void {
    this.#tuning?.dispose();
    this.reference.dispose();
  }
}

/** What stands for the flags: the token, or with categories one for each, `<rf:violence>` for `violence`. */
export function flagTexts(token: string, categories: readonly string[]): string[] {
  if (categories.length === 0) return [token];
  const [, name = token, end = ""] = /^(.*?)(>?)$/s.exec(token) ?? [];
  return categories.map((category) => `${name}:${category}${end}`);
}

/**
 * Adds the flag to a model's vocabulary: appends a row, takes an unused one behind the tokenizer's last token
 * where the matrix has such, or reuses a reserved token; with categories one row for each.
 * @throws RangeError where a token that is named does not exist, the tokenizer has more tokens than the model, or
 * categories repeat or don't match what is to be reused
 */
export async function addRedFlag(model: Model, options: RedFlagOptions = {}): Promise<FlaggedModel> {
  const { token = "<rf>", init = "mean", categories = [], seed = 0 } = options;
  const repeated = categories.find((category, i) => category === "" || categories.indexOf(category) !== i);
  if (repeated !== undefined) throw new RangeError(`categories: '${repeated}' is empty or comes twice`);
  const ids = flagIds(model, options.reuse, categories.length);
  const initial = await initialRows(model, ids, init, seed);
  return new FlaggedModel(
    model,
    token,
    init,
    initial,
    new RowOverlay(model, initial),
    null,
    categories,
    seed,
  );
}

/** Ids for the flags: those to be reused, or as many behind the tokenizer's last token. */
function flagIds(model: Model, reuse: RedFlagOptions["reuse"], categories: number): number[] {
  const count = Math.max(1, categories);
  if (reuse === undefined) {
    const first = newId(model);
    return Array.from({ length: count }, (_, i) => first + i);
  }
  const tokens = typeof reuse === "object" ? reuse : [reuse];
  const ids = tokens.map((token) => tokenId(model, token));
  if (ids.length !== count || new Set(ids).size !== count) {
    const wanted = categories === 0 ? "one token" : `${count} tokens, one for each category`;
    throw new RangeError(`reuse must name ${wanted}, got '${tokens.join("', '")}'`);
  }
  return ids;
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

/**
 * The rows of flags before training.
 * @throws RangeError where `init` is none, or names what the model does not have
 */
export async function initialRows(
  model: Model,
  ids: readonly number[],
  init: RowInit,
  seed: number,
): Promise<RowValues> {
  const input = await rowsOf(model, "embed.weight", ids, init, seed);
  const output = model.config.tied ? input : await rowsOf(model, "head.weight", ids, init, seed + 1);
  return { ids, input, output };
}

/** The first values of rows of the matrix `name`, one behind the other, computed in float64. */
async function rowsOf(
  model: Model,
  name: string,
  ids: readonly number[],
  init: RowInit,
  seed: number,
): Promise<Float32Array> {
  const { vocabSize, hiddenSize: width } = model.config;
  const rows = new Float32Array(ids.length * width);
  const normal = /^normal\((.+)\)$/.exec(init);
  if (normal) {
    const std = Number(normal[1]);
    if (!(std >= 0 && std < Infinity)) throw new RangeError(`init: '${init}' has no standard deviation`);
    const random = new Random(seed);
    return rows.map(() => std * random.normal());
  }
  const table = await model.weight(name).read();
  const row = (index: number) => table.subarray(index * width, (index + 1) * width);
  const fill = (valuesOf: (id: number) => ArrayLike<number>) => {
    for (const [i, id] of ids.entries()) rows.set(valuesOf(id), i * width);
    return rows;
  };
  if (init === "reserved") {
    if (ids.some((id) => id >= vocabSize))
      throw new RangeError("init: 'reserved' keeps a row that exists; name it with reuse");
    return fill(row);
  }
  if (init.startsWith("copy:")) {
    const copied = tokenId(model, init.slice("copy:".length));
    return fill(() => row(copied));
  }
  if (init !== "mean")
    throw new RangeError(`init must be mean, reserved, copy:<token> or normal(std), got '${init}'`);

  // Where flags take rows behind the tokenizer's last token, those rows and what follows were never trained.
  const known = model.tokenizer?.vocabSize ?? vocabSize;
  const existing = Math.min(vocabSize, ...ids.filter((id) => id >= known));
  const sum = new Float64Array(width);
  for (let i = 0; i < existing * width; i++)
    sum[i % width] = (sum[i % width] as number) + (table[i] as number);
  const mean = sum.map((value) => value / existing);
  return fill(() => mean);
}
