import type { WeightType } from "../dtype.js";
import type { NewToken } from "../formats/hf-added-tokens.js";
import { ADAPTER_CONFIG } from "../formats/peft.js";
import type { ModelFiles } from "../formats/source.js";
import type { WeightReader } from "../formats/weights.js";
import { FullTuning } from "../model/full-tuning.js";
import { mergeChanges, type WeightSource } from "../model/merge.js";
import { Model } from "../model/model.js";
import { readValues, type StoredWeight } from "../model/stored-weight.js";
import type { Tensor } from "../tensor.js";
import { calibrationFacts } from "./calibration.js";
import type { KnownFacts } from "./facts.js";
import { readFlagAdapter } from "./read-adapter.js";
import { openFullTuning } from "./store-full.js";
import type { MergedFacts } from "./store-merged.js";
import { type FlaggedModel, flagTexts } from "./vocab.js";

/** A model with its flag in its own weights, which are read where they lie. */
export interface MergedModel extends WeightSource {
  /** The flags as tokens; empty for a model without. */
  readonly tokens: readonly NewToken[];
  readonly facts: MergedFacts;
  /** What the model that was trained has a weight stored as: merged ones are f32 before they are written. */
  typeOf(name: string): WeightType;
  /** Lets the files go that were opened for it. */
  close(): Promise<void>;
}

/** A model, or one with its flag, from the backend's memory: with the values that it is stored as there. */
export async function mergedInMemory(target: FlaggedModel | Model): Promise<MergedModel> {
  const close = async () => {};
  if (target instanceof Model) {
    const source = { config: target.config, weight: (name: string) => tensorWeight(target.weight(name)) };
    return { ...source, ...flagFacts([], { categories: [] }), typeOf: typeIn(source), close };
  }
  const { model, tuning, overlay } = target;
  const { input, output } = overlay.rows ?? target.reference.rows;
  const values = await input.read();
  const rows = {
    ids: target.flagIds,
    input: values,
    output: output === input ? values : await output.read(),
  };
  const lora = new Map<string, { a: Float32Array; b: Float32Array; scale: number }>();
  for (const name of target.adapter?.config.targets ?? []) {
    const { a, b, scale } = target.adapter?.lora(name) ?? {};
    if (a && b && scale) lora.set(name, { a: await a.read(), b: await b.read(), scale });
  }
  const trained = tuning instanceof FullTuning ? tuning : undefined;
  const base = {
    config: model.config,
    weight: (name: string) => tensorWeight(trained?.weight(name) ?? model.weight(name)),
  };
  const facts = flagFacts(target.flagIds, target);
  return { ...mergeChanges(base, { lora, rows }), ...facts, typeOf: typeIn(base), close };
}

/**
 * A model, or one with its flag, from files. Weights keep the values of the files.
 * @param adapter what `train` has written: an adapter, or a model whose weights were all trained
 * @throws FormatError where the adapter is malformed or for another base
 */
export async function mergedFromFiles(base: WeightReader, adapter?: ModelFiles): Promise<MergedModel> {
  const close = async () => {};
  const { config, weight } = base;
  const typeOf = typeIn(base);
  if (!adapter) return { config, weight, ...flagFacts([], { categories: [] }), typeOf, close };
  const read = (name: string) => readValues(weight(name));
  if (!adapter.has(ADAPTER_CONFIG)) {
    const { reader, ids, known } = await openFullTuning(adapter, config, read);
    return {
      // What surrounds the weights (the context, the ids that end a text) is the base's.
      config: { ...config, vocabSize: reader.config.vocabSize },
      weight: (name) => reader.weight(name),
      ...flagFacts(ids, known),
      typeOf: typeIn(reader),
      close: () => reader.close(),
    };
  }
  const { lora, rows, rank, alpha, known } = await readFlagAdapter(adapter, config, read);
  const scaled = new Map([...lora].map(([name, factors]) => [name, { ...factors, scale: alpha / rank }]));
  const facts = flagFacts(rows.ids, known);
  return { ...mergeChanges({ config, weight }, { lora: scaled, rows }), ...facts, typeOf, close };
}

function typeIn({ weight }: WeightSource): (name: string) => WeightType {
  return (name) => weight(name).dtype;
}

function flagFacts(
  ids: readonly number[],
  {
    token = "<rf>",
    categories,
    calibration,
  }: Partial<Pick<KnownFacts, "token" | "calibration">> & Pick<KnownFacts, "categories">,
): Pick<MergedModel, "tokens" | "facts"> {
  const texts = flagTexts(token, categories);
  return {
    tokens: ids.map((id, i) => ({ id, content: texts[i] ?? token })),
    facts: {
      version: 1,
      method: "merged",
      token,
      categories,
      ids,
      calibration: calibration ? calibrationFacts(calibration) : null,
    },
  };
}

/** A weight in a backend's memory. */
function tensorWeight(tensor: Tensor): StoredWeight {
  if (tensor.dtype === "u32") throw new TypeError("a weight holds no ids");
  return {
    shape: tensor.shape,
    dtype: tensor.dtype,
    rowsTogether: 1,
    async read(first, rows, into) {
      into.set(new Uint8Array(await tensor.backend.read(tensor.rowBlock(first, rows))));
    },
  };
}
