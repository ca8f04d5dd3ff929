import { stat } from "node:fs/promises";
import type { Backend } from "../backend.js";
import type { KeptType } from "../dtype.js";
import { FormatError } from "../errors.js";
import { loadRedFlag } from "../flag/store.js";
import type { FlaggedModel } from "../flag/vocab.js";
import { loadModel } from "../formats/load-model.js";
import type { LoadProgress } from "../model/fill-weights.js";
import { vocabularySize } from "../model/forward.js";
import type { Model } from "../model/model.js";
import { backendFor, type GlobalOptions } from "./options.js";
import { type Progress, progressBar } from "./terminal.js";

/** Options that name a model. */
export interface ModelOptions extends GlobalOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly tokenizer?: string;
  readonly dtype: KeptType;
}

/** Runs `use` with the model of the options and, with --adapter, its flag; frees both after. */
export async function withModel(
  options: ModelOptions,
  use: (loaded: { model: Model; flagged: FlaggedModel | undefined; backend: Backend }) => Promise<void>,
): Promise<void> {
  const backend = await backendFor(options);
  try {
    const model = await loadWithProgress(backend, options);
    const flagged = options.adapter === undefined ? undefined : await loadRedFlag(model, options.adapter);
    await use({ model, flagged, backend });
  } finally {
    backend.dispose();
  }
}

/** Bytes from which on loading takes so long that its course is shown. */
const SHOWN_BYTES = 200e6;

async function loadWithProgress(backend: Backend, options: ModelOptions): Promise<Model> {
  let bar: Progress | undefined;
  let shown = 0;
  const onProgress = ({ loaded, total }: LoadProgress) => {
    // A hundred times in all: the time left is estimated from the last updates.
    if (total < SHOWN_BYTES || (loaded - shown < total / 100 && loaded < total)) return;
    shown = loaded;
    bar ??= progressBar("loading", megabytes(total));
    bar.update(megabytes(loaded), "MB");
  };
  const tokenizer = options.tokenizer === undefined ? {} : { tokenizer: options.tokenizer };
  try {
    return await loadModel(options.model, { backend, dtype: options.dtype, onProgress, ...tokenizer });
  } finally {
    bar?.stop();
  }
}

function megabytes(bytes: number): number {
  return Math.round(bytes / 1e6);
}

/** Throws RangeError where the ids of --ids are not the model's, or more than its context holds. */
export function expectIds(
  ids: readonly number[],
  { config }: Model,
  flagged: FlaggedModel | undefined,
): void {
  const known = vocabularySize(config, flagged?.overlay);
  const unknown = ids.find((id) => id >= known);
  if (unknown !== undefined)
    throw new RangeError(`--ids: ${unknown} is outside the vocabulary of ${known} tokens`);
  if (ids.length > config.contextLength) {
    throw new RangeError(
      `--ids: ${ids.length} tokens are longer than the model's context of ${config.contextLength}`,
    );
  }
}

/** Throws FormatError where --out cannot become a folder: said before the work, not after it. */
export async function expectFolderTarget(path: string): Promise<void> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => error);
  if (found instanceof Error) {
    if (found.code === "ENOENT") return;
    const reason = found.code === "ENOTDIR" ? "it lies in a file" : found.code;
    throw new FormatError(path, `cannot be written: ${reason}`);
  }
  if (!found.isDirectory()) throw new FormatError(path, "cannot be written: it is not a folder");
}
