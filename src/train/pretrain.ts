import type { Model } from "../model/model.js";
import { Random, type RandomState } from "../random.js";
import type { Tokenizer } from "../tokenizer.js";
import type { BatchSource } from "./batches.js";
import { type LanguageBatch, languageLoss } from "./language.js";
import { type TrainOptions, type TrainStep, train } from "./trainer.js";

/** How a base model is trained. */
export interface PretrainOptions extends TrainOptions {
  /** Windows a batch. */
  readonly batch: number;
  /** Ids that stand before and after every document. */
  readonly bosId: number;
  readonly eosId: number;
  readonly seed: number;
}

/** Documents as one row of ids, and where each begins. */
export interface Corpus {
  readonly ids: Uint32Array;
  readonly starts: Uint32Array;
}

/** Documents are what blank lines part. */
export function toCorpus(
  tokenizer: Tokenizer,
  texts: readonly string[],
  bosId: number,
  eosId: number,
): Corpus {
  const documents = texts
    .flatMap((text) => text.split(/\r?\n\s*\r?\n/))
    .map((document) => document.trim())
    .filter((document) => document !== "")
    .map((document) => [bosId, ...tokenizer.encode(document), eosId]);
  const starts = new Uint32Array(documents.length);
  let length = 0;
  documents.forEach((document, i) => {
    starts[i] = length;
    length += document.length;
  });
  const ids = new Uint32Array(length);
  documents.forEach((document, i) => {
    ids.set(document, starts[i]);
  });
  return { ids, starts };
}

/**
 * Draws a window of `length` ids: where its random place lies in a document that began within reach, from that
 * document's start, so that the model learns to begin; else from there.
 */
function drawWindow({ ids, starts }: Corpus, length: number, random: Random): Uint32Array {
  const place = random.below(ids.length);
  let low = 0;
  let high = starts.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((starts[middle] as number) <= place) low = middle;
    else high = middle;
  }
  const start = starts[low] as number;
  const from = place - start < length ? start : place;
  const window = ids.slice(from, from + length);
  if (window.length === length) return window;
  // The corpus ends inside the window: go on at its beginning.
  return Uint32Array.from({ length }, (_, i) => ids[(from + i) % ids.length] as number);
}

/** Batches of `batch` windows of `length` ids. */
function windows(corpus: Corpus, batch: number, length: number, random: Random): BatchSource<LanguageBatch> {
  return {
    next() {
      const ids = new Uint32Array(batch * length);
      for (let i = 0; i < batch; i++) ids.set(drawWindow(corpus, length, random), i * length);
      return { ids, batch };
    },
    get state() {
      return random.state;
    },
    set state(state) {
      random.state = state as RandomState;
    },
  };
}

/** Trains all weights of a model to predict each next token of the corpus. */
export function pretrain(model: Model, corpus: Corpus, options: PretrainOptions): AsyncGenerator<TrainStep> {
  const batches = windows(corpus, options.batch, model.config.contextLength, new Random(options.seed));
  return train(model.weights, languageLoss(model), batches, options);
}
