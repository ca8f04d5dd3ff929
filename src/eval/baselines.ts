import { FormatError } from "../errors.js";
import type { Model } from "../model/model.js";
import { type ExampleFile, givenConversations } from "./conversations.js";
import type { Detector } from "./detector.js";
import { trainLinearProbe } from "./linear-probe.js";
import { trainNgrams } from "./ngrams.js";

/** What baselines are trained on: the data of the flag's own training. */
export interface TrainingFiles {
  readonly harmful: ExampleFile;
  readonly benign: ExampleFile;
}

/**
 * Trains what a red flag is to be compared with: a linear probe on the hidden states, and a classifier of n-grams.
 * @param maxTokens most tokens of a response
 * @throws FormatError for a file without a response that fits
 */
export async function trainBaselines(
  model: Model,
  files: TrainingFiles,
  maxTokens: number,
  onProgress?: (done: number, total: number) => void,
): Promise<Detector[]> {
  const read = (file: ExampleFile) => {
    const conversations = givenConversations(model, file, maxTokens);
    if (conversations.length > 0) return conversations;
    throw new FormatError(file.path, `none of its ${file.examples.length} examples has a response that fits`);
  };
  const data = { harmful: read(files.harmful), benign: read(files.benign) };
  const total = data.harmful.length + 2 * data.benign.length;
  let done = 0;
  const probe = await trainLinearProbe(model, data, () => onProgress?.(++done, total));
  return [probe, trainNgrams(data)];
}
