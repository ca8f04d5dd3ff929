import type { Conversation, ConversationSet } from "./conversations.js";
import type { Detector } from "./detector.js";
import { type FeatureRows, fitLogistic } from "./logistic.js";
import { ownThreshold } from "./metrics.js";

/** Places that n-grams are hashed to (Weinberger et al. 2009): few share one. */
const WIDTH = 1 << 18;
const MOST_CHARACTERS = 4;

/**
 * Trains a logistic regression on the n-grams of prompt and response: words, pairs of words, and 1 to 4 characters.
 * It knows nothing of the model: what a word list could do.
 * @throws RangeError where a class has no conversation
 */
export function trainNgrams({ harmful, benign }: ConversationSet): Detector {
  const documents = [...harmful, ...benign].map(ngramsOf);
  const labels = Uint8Array.from(documents, (_, i) => (i < harmful.length ? 1 : 0));
  const rows = sparseRows(documents);
  const { weights, bias } = fitLogistic(rows, labels, { l2: 1 / documents.length });
  const ownScores = benign.map((_, i) => bias + rows.dot(harmful.length + i, weights));
  const threshold = ownThreshold(ownScores);
  return {
    name: "n-grams",
    rule: `log-odds >= ${threshold.toFixed(3)}`,
    async read(conversations) {
      const found = sparseRows(conversations.map(ngramsOf));
      return conversations.map((_, i) => {
        const score = bias + found.dot(i, weights);
        return { score, flagged: score >= threshold, first: null };
      });
    },
  };
}

/** A document's features: places, and how much of each; of length 1. */
interface Ngrams {
  readonly places: Uint32Array;
  readonly values: Float32Array;
}

function ngramsOf({ prompt, response }: Conversation): Ngrams {
  const text = `${prompt}\n${response}`.normalize("NFKC").toLowerCase();
  const counts = new Map<number, number>();
  const count = (ngram: string) => {
    const place = hash(ngram) % WIDTH;
    counts.set(place, (counts.get(place) ?? 0) + 1);
  };
  const words = text.match(/[\p{L}\p{N}]+/gu) ?? [];
  words.forEach((word, i) => {
    count(`w ${word}`);
    if (i > 0) count(`w ${words[i - 1]} ${word}`);
  });
  const characters = [...text];
  for (let length = 1; length <= MOST_CHARACTERS; length++) {
    for (let i = 0; i + length <= characters.length; i++)
      count(`c ${characters.slice(i, i + length).join("")}`);
  }
  // The tenth time that a word occurs says less than the first.
  const values = Float32Array.from(counts.values(), (times) => 1 + Math.log(times));
  const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)) || 1;
  return { places: Uint32Array.from(counts.keys()), values: values.map((value) => value / norm) };
}

/** FNV-1a of UTF-16 units, 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

function sparseRows(documents: readonly Ngrams[]): FeatureRows {
  return {
    count: documents.length,
    width: WIDTH,
    dot(row, weights) {
      const { places, values } = documents[row] as Ngrams;
      let sum = 0;
      for (let k = 0; k < places.length; k++) {
        sum += (values[k] as number) * (weights[places[k] as number] as number);
      }
      return sum;
    },
    addTo(target, row, factor) {
      const { places, values } = documents[row] as Ngrams;
      for (let k = 0; k < places.length; k++) {
        const place = places[k] as number;
        target[place] = (target[place] as number) + factor * (values[k] as number);
      }
    },
  };
}
