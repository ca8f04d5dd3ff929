import type { Backend } from "../backend.js";
import { loadRedFlag } from "../flag/store.js";
import { addRedFlag, type FlaggedModel } from "../flag/vocab.js";
import { loadModel } from "../formats/load-model.js";
import type { Model } from "../model/model.js";
import { backendFor, type GlobalOptions } from "./options.js";

/** Options that name a model. */
export interface ModelOptions extends GlobalOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly tokenizer?: string;
}

/** Runs `use` with the model of the options and, with --adapter, its flag; frees both after. */
export async function withModel(
  options: ModelOptions,
  use: (loaded: { model: Model; flagged: FlaggedModel | undefined; backend: Backend }) => Promise<void>,
): Promise<void> {
  const backend = await backendFor(options);
  try {
    const tokenizer = options.tokenizer === undefined ? {} : { tokenizer: options.tokenizer };
    const model = await loadModel(options.model, { backend, ...tokenizer });
    const flagged = options.adapter === undefined ? undefined : await loadRedFlag(model, options.adapter);
    await use({ model, flagged, backend });
  } finally {
    backend.dispose();
  }
}

/** The flag of --adapter, or a fresh one: what `train` starts from. */
export async function flagOf(model: Model, flagged: FlaggedModel | undefined): Promise<FlaggedModel> {
  return flagged ?? addRedFlag(model);
}
