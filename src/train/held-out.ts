import { forward } from "../model/forward.js";
import { headCrossEntropy } from "../model/head-loss.js";
import type { Model } from "../model/model.js";
import { Tape } from "../tape.js";
import { Arena } from "../tensor.js";
import type { Corpus } from "./corpus.js";

/** How well a model predicts text that it was not trained on. */
export interface HeldOutLoss {
  /** Mean cross-entropy of a token, in nats. */
  readonly loss: number;
  /** Bits that coding the text with the model takes for each of its UTF-8 bytes, all documents' ends included. */
  readonly bitsPerByte: number;
}

/**
 * The loss on a corpus, each of its tokens but the first predicted once: the row of ids is cut into windows of the
 * model's context, each beginning with the last token of the one before, which is all that it knows of it.
 * @param batch windows that go through the model together
 */
export async function heldOutLoss(model: Model, corpus: Corpus, batch: number): Promise<HeldOutLoss> {
  const { ids, bytes } = corpus;
  const length = Math.min(model.config.contextLength, ids.length);
  const starts: number[] = [];
  for (let from = 0; from < ids.length - 1; from += length - 1) starts.push(from);
  const arena = new Arena(model.backend);
  let nats = 0;
  try {
    for (let i = 0; i < starts.length; i += batch) {
      arena.reset();
      const part = starts.slice(i, i + batch);
      // Behind the end of the corpus any id will do: its rows don't count.
      const idAt = (from: number, t: number) => ids[from + t] ?? 0;
      const grid = (shift: number) =>
        Uint32Array.from(part.flatMap((from) => Array.from({ length }, (_, t) => idAt(from, t + shift))));
      const counts = part.flatMap((from) =>
        Array.from({ length }, (_, t) => t < length - 1 && from + t + 1 < ids.length),
      );
      const tape = new Tape(arena, false);
      const hidden = forward(tape, model, grid(0), { batch: part.length });
      const weights = Float32Array.from(counts, Number);
      const rows = headCrossEntropy(tape, model, { hidden }, tape.from(grid(1)), tape.from(weights));
      const losses = await rows.read();
      nats += losses.reduce((sum, loss, row) => sum + (counts[row] ? loss : 0), 0);
    }
  } finally {
    arena.dispose();
  }
  return { loss: nats / (ids.length - 1), bitsPerByte: nats / Math.LN2 / bytes };
}
