import { FormatError, UnsupportedError } from "../errors.js";
import { linearLayers, type ModelConfig, weightShapes } from "../model/config.js";
import { formatShape, sizeOf } from "../tensor.js";
import { openFiles } from "./files.js";
import { architectureOf } from "./hf-architectures.js";
import { toHuggingFaceName } from "./hf-names.js";
import { Fields, parseObject } from "./json.js";
import { type AdapterConfig, adapterConfigJson, readAdapterConfig } from "./peft-config.js";
import { openSafetensors, type SafetensorsFile } from "./safetensors.js";
import { type TensorData, writeSafetensors } from "./safetensors-write.js";
import type { ModelFiles } from "./source.js";
import { expectFinite } from "./weights.js";
import { type FileContent, replaceFile, writeFolder } from "./write.js";

/** The two factors of a linear layer's change: `alpha / rank · b · a`. */
export interface LoraFactors {
  /** (rank, in) */
  readonly a: Float32Array;
  /** (out, rank) */
  readonly b: Float32Array;
}

/** Trained rows of the embedding and of the head: values, not differences. */
export interface TrainedRows {
  readonly ids: readonly number[];
  /** (ids, hidden) */
  readonly input: Float32Array;
  /** (ids, hidden); the same array where the base ties its head to its embedding. */
  readonly output: Float32Array;
}

/** An adapter for a base model. */
export interface AdapterData {
  readonly rank: number;
  readonly alpha: number;
  /** Share of an addition's input that training drops; 0 where nothing is said. */
  readonly dropout?: number;
  /** PEFT's names of the adapted modules: `q_proj`, … */
  readonly targets: readonly string[];
  /** By our names of linear layers: `layers.0.q`, … */
  readonly lora: ReadonlyMap<string, LoraFactors>;
  readonly rows: TrainedRows | null;
  /** The content of `oriflamme.json`: what this package wants to know that PEFT has no field for. */
  readonly facts: Readonly<Record<string, unknown>> | null;
}

/** The file that makes a folder a PEFT adapter. */
export const ADAPTER_CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";
/** The file of our own facts beside PEFT's. */
export const FACTS = "oriflamme.json";
const WRAPPER = "base_model.model.";
const DELTA = ".token_adapter.trainable_tokens_delta";

/**
 * Reads a PEFT LoRA adapter for a base of that configuration (before any row was added).
 * Throws FormatError where the files are malformed or made for another base, UnsupportedError naming the field or
 * tensor that this engine does not implement.
 */
export async function readAdapter(files: ModelFiles, config: ModelConfig): Promise<AdapterData> {
  const where = files.describe(ADAPTER_CONFIG);
  const settings = readAdapterConfig(new Fields(where, parseObject(await files.text(ADAPTER_CONFIG), where)));
  const facts = files.has(FACTS) ? parseObject(await files.text(FACTS), files.describe(FACTS)) : null;
  const source = await files.open(WEIGHTS);
  try {
    const file = await openSafetensors(source);
    const unread = new Set(file.tensors.keys());
    const lora = await readLora(file, settings, config, unread);
    const rows = await readRows(file, settings, config, unread, where);
    for (const name of unread) refuse(file, name);
    if (lora.size === 0 && rows === null) {
      throw new FormatError(file.name, "the adapter is for another base: it changes nothing in this one");
    }
    const targets = settings.targets ?? [
      ...new Set([...lora.keys()].map((layer) => moduleName(config, layer))),
    ];
    const { rank, alpha, dropout } = settings;
    return { rank, alpha, ...(dropout > 0 ? { dropout } : {}), targets, lora, rows, facts };
  } finally {
    await source.close();
  }
}

async function readLora(
  file: SafetensorsFile,
  { rank, targets, allLayers }: AdapterConfig,
  config: ModelConfig,
  unread: Set<string>,
): Promise<Map<string, LoraFactors>> {
  const lora = new Map<string, LoraFactors>();
  for (const [layer, { a, b }] of loraShapes(config, rank)) {
    const names = loraNames(config, layer);
    const isPresent = file.tensors.has(names.a) || file.tensors.has(names.b);
    const module = toHuggingFaceName(config, layer).name;
    const isTarget =
      allLayers && targets?.some((target) => module === target || module.endsWith(`.${target}`));
    if (!isPresent && !isTarget) continue;
    lora.set(layer, { a: await readTensor(file, names.a, a), b: await readTensor(file, names.b, b) });
    unread.delete(names.a);
    unread.delete(names.b);
  }
  return lora;
}

async function readRows(
  file: SafetensorsFile,
  { tokenIds }: AdapterConfig,
  config: ModelConfig,
  unread: Set<string>,
  where: string,
): Promise<TrainedRows | null> {
  const modules = rowModules(config);
  const ids = tokenIds.get(modules.input) ?? tokenIds.get("") ?? null;
  const headIds = tokenIds.get(modules.output) ?? null;
  for (const module of tokenIds.keys()) {
    if (![modules.input, modules.output, ""].includes(module)) {
      throw new FormatError(where, `the adapter is for another base: it trains rows of '${module}'`);
    }
  }
  if (ids === null && headIds === null) return null;
  if (ids === null) {
    throw new UnsupportedError(
      `${where}: 'trainable_token_indices' trains the head's rows but not the embedding's`,
    );
  }
  // Else the row would be in the embedding only, and its token could never be predicted.
  if (!config.tied && headIds === null) {
    throw new UnsupportedError(
      `${where}: 'trainable_token_indices' has no '${modules.output}', though the base does not tie its head`,
    );
  }
  if (headIds !== null && headIds.join() !== ids.join()) {
    throw new UnsupportedError(`${where}: 'trainable_token_indices' of '${modules.output}' are other ids`);
  }
  // Rows of the base, or rows appended to it without a gap.
  const appended = ids.filter((id) => id >= config.vocabSize).sort((a, b) => a - b);
  const beyond = appended.find((id, i) => id !== config.vocabSize + i);
  if (beyond !== undefined) {
    const problem = `token ${beyond} with a vocabulary of ${config.vocabSize}`;
    throw new FormatError(where, `the adapter is for another base: 'trainable_token_indices' has ${problem}`);
  }

  const names = rowNames(config);
  const shape = [ids.length, config.hiddenSize];
  const input = await readTensor(file, names.input, shape);
  unread.delete(names.input);
  // A file of a tied base may repeat the row under the head's name.
  const hasOutput = !config.tied || file.tensors.has(names.output);
  const output = hasOutput ? await readTensor(file, names.output, shape) : input;
  unread.delete(names.output);
  if (!config.tied) return { ids, input, output };
  if (output.some((value, i) => value !== input[i])) {
    throw new FormatError(
      file.name,
      `tensor '${names.output}' differs from the embedding's rows, but the base ties its head to its embedding`,
    );
  }
  return { ids, input, output: input };
}

async function readTensor(
  file: SafetensorsFile,
  name: string,
  shape: readonly number[],
): Promise<Float32Array> {
  const entry = file.tensors.get(name);
  if (!entry) throw new FormatError(file.name, `has no tensor '${name}'`);
  if (entry.shape.length !== shape.length || entry.shape.some((dim, i) => dim !== shape[i])) {
    throw new FormatError(
      file.name,
      `the adapter is for another base: tensor '${name}' has shape ${formatShape(entry.shape)}, ` +
        `expected ${formatShape(shape)}`,
    );
  }
  const values = await file.read(name);
  expectFinite(values, file.name, name);
  return values;
}

/** Throws for a tensor that was not used: part of a base that differs, or of a method that is not implemented. */
function refuse(file: SafetensorsFile, name: string): never {
  if (/\.(lora_[AB]\.weight|token_adapter\.trainable_tokens_delta)$/.test(name)) {
    throw new FormatError(file.name, `the adapter is for another base: tensor '${name}' has no place in it`);
  }
  throw new UnsupportedError(`${file.name}: tensor '${name}' belongs to no LoRA factor or trained row`);
}

/**
 * The files of a PEFT adapter folder. Throws RangeError where data and shapes of the base disagree.
 */
export function adapterFiles(data: AdapterData, config: ModelConfig): Map<string, FileContent> {
  const shapes = new Map(loraShapes(config, data.rank));
  const tensors = new Map<string, TensorData>();
  const put = (name: string, shape: readonly number[], values: Float32Array) => {
    if (values.length !== sizeOf(shape)) {
      throw new RangeError(`tensor '${name}': ${values.length} values for the shape ${formatShape(shape)}`);
    }
    tensors.set(name, { dtype: "F32", shape, data: values });
  };
  for (const [layer, { a, b }] of data.lora) {
    const shape = shapes.get(layer);
    if (!shape)
      throw new RangeError(`a model of type '${config.architecture}' has no linear layer '${layer}'`);
    const names = loraNames(config, layer);
    put(names.a, shape.a, a);
    put(names.b, shape.b, b);
  }

  const { rows } = data;
  const modules = rowModules(config);
  if (rows) {
    const names = rowNames(config);
    const shape = [rows.ids.length, config.hiddenSize];
    put(names.input, shape, rows.input);
    if (!config.tied) put(names.output, shape, rows.output);
  }
  const json = adapterConfigJson({
    rank: data.rank,
    alpha: data.alpha,
    dropout: data.dropout ?? 0,
    ...targetModules(data, config),
    tokenIds: rows && { [modules.input]: rows.ids, ...(!config.tied && { [modules.output]: rows.ids }) },
    fanInFanOut: architectureOf(config.architecture, "model").transposed,
  });
  const files = new Map<string, FileContent>();
  files.set(WEIGHTS, writeSafetensors(tensors, { format: "pt" }));
  files.set(ADAPTER_CONFIG, `${JSON.stringify(json, null, 2)}\n`);
  if (data.facts) files.set(FACTS, `${JSON.stringify(data.facts, null, 2)}\n`);
  return files;
}

/** Writes an adapter folder, whole or not at all. Node only. Throws as `adapterFiles` and `writeFolder`. */
export async function writeAdapter(path: string, data: AdapterData, config: ModelConfig): Promise<void> {
  await writeFolder(path, adapterFiles(data, config));
}

/**
 * How PEFT finds the adapted modules: by their own names and the numbers of their layers, or where these name others
 * too by full names.
 */
function targetModules(
  { lora, targets }: AdapterData,
  config: ModelConfig,
): { targets: readonly string[]; layers: readonly number[] | null } {
  const numberOf = (layer: string) => Number(layer.split(".")[1]);
  const numbers = new Set([...lora.keys()].map(numberOf));
  const names = new Set([...lora.keys()].map((layer) => moduleName(config, layer)));
  const found = linearLayers(config).filter(
    (layer) => names.has(moduleName(config, layer)) && numbers.has(numberOf(layer)),
  );
  if (found.length > lora.size) {
    return { targets: [...lora.keys()].map((layer) => toHuggingFaceName(config, layer).name), layers: null };
  }
  const isWhole = lora.size === 0 || numbers.size === config.layers;
  return { targets, layers: isWhole ? null : [...numbers].sort((a, b) => a - b) };
}

/**
 * Sets fields of an adapter folder's `oriflamme.json`, beside it and then renamed; the other fields stay. Node only.
 * @throws FormatError where the file cannot be read or written, or holds no JSON object
 */
export async function updateFacts(path: string, fields: Readonly<Record<string, unknown>>): Promise<void> {
  const files = await openFiles(path);
  const name = files.describe(FACTS);
  const known = files.has(FACTS) ? parseObject(await files.text(FACTS), name) : {};
  await replaceFile(name, `${JSON.stringify({ ...known, ...fields }, null, 2)}\n`);
}

/** The name by which PEFT's `target_modules` knows a linear layer of ours: `q_proj` for `layers.0.q`. */
export function moduleName(config: ModelConfig, layer: string): string {
  return toHuggingFaceName(config, layer).name.split(".").at(-1) ?? "";
}

/** The names of a layer's factors in `adapter_model.safetensors`. */
export function loraNames(config: ModelConfig, layer: string): { a: string; b: string } {
  const module = `${WRAPPER}${toHuggingFaceName(config, layer).name}`;
  return { a: `${module}.lora_A.weight`, b: `${module}.lora_B.weight` };
}

/** The names of the trained rows in `adapter_model.safetensors`. */
export function rowNames(config: ModelConfig): { input: string; output: string } {
  return {
    input: `${WRAPPER}${toHuggingFaceName(config, "embed").name}${DELTA}`,
    output: `${WRAPPER}${toHuggingFaceName(config, "head").name}${DELTA}`,
  };
}

function rowModules(config: ModelConfig): { input: string; output: string } {
  return { input: moduleName(config, "embed"), output: moduleName(config, "head") };
}

function* loraShapes(config: ModelConfig, rank: number): Generator<[string, { a: number[]; b: number[] }]> {
  const shapes = weightShapes(config);
  for (const layer of linearLayers(config)) {
    const [out = 0, input = 0] = shapes.get(`${layer}.weight`) ?? [];
    yield [layer, { a: [rank, input], b: [out, rank] }];
  }
}
