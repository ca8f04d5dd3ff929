import { forward } from "../model/forward.js";
import { headCrossEntropy } from "../model/head-loss.js";
import type { Model } from "../model/model.js";
import type { SyncLoss } from "./trainer.js";

/** Token sequences of one length, to predict each next token of. */
export interface LanguageBatch {
  /** (batch · length) */
  readonly ids: ArrayLike<number>;
  readonly batch: number;
}

/** Mean next-token cross-entropy, in nats: what a base model is trained on. */
export function languageLoss(model: Model): SyncLoss<LanguageBatch> {
  return (tape, { ids, batch }, scale) => {
    const length = ids.length / batch;
    const positions = batch * (length - 1);
    // The last token of a sequence predicts nothing: any target will do, with weight 0.
    const isLast = (i: number) => (i + 1) % length === 0;
    const targets = Uint32Array.from(ids, (_, i) => (isLast(i) ? 0 : (ids[i + 1] ?? 0)));
    const weights = Float32Array.from(ids, (_, i) => (isLast(i) ? 0 : scale / positions));
    const hidden = forward(tape, model, ids, { batch });
    const rows = headCrossEntropy(tape, model, { hidden }, tape.from(targets), tape.from(weights));
    return async () => {
      const losses = await rows.read();
      const loss = losses.reduce((sum, value, i) => sum + (isLast(i) ? 0 : value), 0) / positions;
      return { loss, terms: {}, tokens: ids.length };
    };
  };
}
