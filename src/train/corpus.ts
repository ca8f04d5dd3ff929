import type { Random, RandomState } from "../random.js";
import type { Tokenizer } from "../tokenizer.js";
import type { BatchSource } from "./batches.js";
import type { LanguageBatch } from "./language.js";

/** A text that a model learns to begin and to end. */
export interface TextDocument {
  readonly text: string;
  /** Where it stands, for messages. */
  readonly name: string;
}

/** Documents as one row of ids. */
export interface Corpus {
  readonly ids: Uint32Array;
  /** Where each document begins. */
  readonly starts: Uint32Array;
  readonly names: readonly string[];
  /** UTF-8 bytes of the documents' texts. */
  readonly bytes: number;
}

/** The documents of a text: what blank lines part, named by the lines that they begin at, as in `poems.txt:12`. */
export function textDocuments(text: string, file: string): TextDocument[] {
  const lineBreaks = (part: string) => part.split("\n").length - 1;
  const documents: TextDocument[] = [];
  let line = 1;
  // The group keeps the separators, for their line breaks.
  for (const part of text.split(/(\r?\n\s*\r?\n)/)) {
    const before = part.slice(0, part.length - part.trimStart().length);
    documents.push({ text: part.trim(), name: `${file}:${line + lineBreaks(before)}` });
    line += lineBreaks(part);
  }
  return documents;
}

/** Documents between BOS and EOS; those that hold nothing but white space are left out. */
export function toCorpus(
  tokenizer: Tokenizer,
  documents: readonly TextDocument[],
  bosId: number,
  eosId: number,
): Corpus {
  const used = documents.filter(({ text }) => text.trim() !== "");
  const rows = used.map(({ text }) => [bosId, ...tokenizer.encode(text), eosId]);
  const starts = new Uint32Array(rows.length);
  let length = 0;
  rows.forEach((row, i) => {
    starts[i] = length;
    length += row.length;
  });
  const ids = new Uint32Array(length);
  rows.forEach((row, i) => {
    ids.set(row, starts[i]);
  });
  const encoder = new TextEncoder();
  const bytes = used.reduce((sum, { text }) => sum + encoder.encode(text).length, 0);
  return { ids, starts, names: used.map(({ name }) => name), bytes };
}

/** Windows of a corpus, and the documents that they begin in. */
export interface WindowBatch extends LanguageBatch {
  readonly documents: readonly number[];
}

/** Draws batches of `batch` windows of `length` ids. */
export function windows(
  corpus: Corpus,
  batch: number,
  length: number,
  random: Random,
): BatchSource<WindowBatch> {
  return {
    next() {
      const ids = new Uint32Array(batch * length);
      const documents: number[] = [];
      for (let i = 0; i < batch; i++) {
        const { window, document } = drawWindow(corpus, length, random);
        ids.set(window, i * length);
        documents.push(document);
      }
      return { ids, batch, documents };
    },
    get state() {
      return random.state;
    },
    set state(state) {
      random.state = state as RandomState;
    },
    describe: ({ documents }) => `windows from ${documents.map((i) => corpus.names[i]).join(", ")}`,
  };
}

/**
 * Draws a window of `length` ids: where its random place lies in a document that began within reach, from that
 * document's start, so that the model learns to begin; else from there.
 */
function drawWindow(
  { ids, starts }: Corpus,
  length: number,
  random: Random,
): { window: Uint32Array; document: number } {
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
  // Where the corpus ends inside the window, it goes on at its beginning.
  const window = Uint32Array.from({ length }, (_, i) => ids[(from + i) % ids.length] as number);
  return { window, document: low };
}
