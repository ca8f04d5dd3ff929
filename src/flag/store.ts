import { type FilesInput, openFiles } from "../formats/files.js";
import {
  ADAPTER_CONFIG,
  type AdapterData,
  FACTS,
  type LoraFactors,
  moduleName,
  updateFacts,
  writeAdapter,
} from "../formats/peft.js";
import type { ModelFiles } from "../formats/source.js";
import type { FetchOptions } from "../formats/url-files.js";
import type { Adapter, RowValues } from "../model/adapter.js";
import { linearLayers } from "../model/config.js";
import { FullTuning } from "../model/full-tuning.js";
import type { Model } from "../model/model.js";
import { type Calibration, calibrationFacts } from "./calibration.js";
import { factsOf, weightsOf, withInitialRows } from "./facts.js";
import { readFlagAdapter } from "./read-adapter.js";
import { selfTest } from "./self-test.js";
import { loadFullTuning, saveFullTuning } from "./store-full.js";
import { loadMerged, readMergedFacts } from "./store-merged.js";
import type { FlaggedModel } from "./vocab.js";

/**
 * Writes the flag, beside its place and then renamed: low-rank additions as a PEFT adapter folder, a model whose
 * weights were all trained as a Hugging Face folder; with `oriflamme.json` in it. Node only.
 * @throws FormatError naming the file that cannot be written, TypeError for a flag that was never trained
 */
export async function saveRedFlag(flagged: FlaggedModel, path: string): Promise<void> {
  const { tuning } = flagged;
  if (!tuning) throw new TypeError("save: the flag has no adapter; train it first");
  if (tuning instanceof FullTuning) await saveFullTuning(flagged, tuning, path);
  else await saveAdapter(flagged, tuning, path);
}

async function saveAdapter(flagged: FlaggedModel, adapter: Adapter, path: string): Promise<void> {
  const { model } = flagged;
  const lora = new Map<string, LoraFactors>();
  for (const name of adapter.config.targets) {
    const { a, b } = adapter.lora(name) ?? {};
    if (a && b) lora.set(name, { a: await a.read(), b: await b.read() });
  }
  const input = await adapter.rows.input.read();
  const output = model.config.tied ? input : await adapter.rows.output.read();
  const facts = await factsOf(flagged);
  const { rank, alpha, dropout = 0 } = adapter.config;
  const rows = { ids: [...adapter.rows.ids], input, output };
  const targets = [...new Set(adapter.config.targets.map((name) => moduleName(model.config, name)))];
  await writeAdapter(path, { rank, alpha, dropout, targets, lora, rows, facts: { ...facts } }, model.config);
}

/**
 * Writes a calibration into the `oriflamme.json` of an adapter folder; what else it tells stays. Node only.
 * @throws FormatError naming the file that cannot be read or written
 */
export async function saveCalibration(path: string, calibration: Calibration): Promise<void> {
  await updateFacts(path, { calibration: calibrationFacts(calibration) });
}

/**
 * Loads a flag that `saveRedFlag` or PEFT has written over its base, or that `exportModel` has merged into this model,
 * and tests that the trained row is really in the head.
 * Adapters without our facts (written by PEFT) are taken with the defaults for what they don't say.
 * @param options of the download where `input` is a URL
 * @throws FormatError where the files are malformed, are for another base, or hold no flag; UnsupportedError where
 * they hold several rows and don't say what these are for
 */
export async function loadRedFlag(
  model: Model,
  input: FilesInput,
  options: FetchOptions = {},
): Promise<FlaggedModel> {
  const files = await openFiles(input, options);
  const merged = await readMergedFacts(files);
  if (merged) return loadMerged(model, merged);
  const isFull = files.has(FACTS) && !files.has(ADAPTER_CONFIG);
  return isFull ? loadFullTuning(model, files) : loadAdapter(model, files);
}

async function loadAdapter(model: Model, files: ModelFiles): Promise<FlaggedModel> {
  const data = await readFlagAdapter(files, model.config, weightsOf(model));
  const flagged = await withInitialRows(model, data.rows.ids, data.known);
  try {
    const targets = linearLayers(model.config).filter((name) => data.lora.has(name));
    const { rank, alpha, dropout } = data;
    const adapter = flagged.attach({ rank, alpha, targets, ...(dropout ? { dropout } : {}) }, 0);
    fillAdapter(adapter, data, data.rows);
    await selfTest(flagged, files.name);
    return flagged;
  } catch (error) {
    flagged.dispose();
    throw error;
  }
}

function fillAdapter(adapter: Adapter, data: AdapterData, rows: RowValues): void {
  for (const name of adapter.config.targets) {
    const { a, b } = adapter.lora(name) ?? {};
    const values = data.lora.get(name);
    if (a && b && values) {
      a.write(values.a);
      b.write(values.b);
    }
  }
  adapter.rows.input.write(rows.input);
  if (adapter.rows.output !== adapter.rows.input) adapter.rows.output.write(rows.output);
}
