import type { FlagSequence } from "../flag/data.js";
import { responseRows } from "../flag/score.js";
import type { Model } from "../model/model.js";
import { Tape } from "../tape.js";
import { Arena } from "../tensor.js";
import type { Conversation, ConversationSet } from "./conversations.js";
import type { Detector, Reading } from "./detector.js";
import { type FeatureRows, fitLogistic, type LinearClassifier } from "./logistic.js";
import { ownThreshold } from "./metrics.js";

/** Hidden values that the fit holds at once: 64 MiB. Long conversations give evenly spaced positions. */
const MOST_VALUES = 1 << 24;

/**
 * Trains a linear probe (Alain and Bengio 2016) on the same data as the flag, and on the hidden states that the flag
 * is read from before any training: the base model's residual stream after the last norm, before each token of the
 * response and after the last. Positions of harmful conversations count from the onset on, as for the flag; those
 * before it are neither. A conversation's score is the highest log-odds of its positions.
 * @param onRead called after each conversation, twice for the benign
 * @throws RangeError where a class has no position
 */
export async function trainLinearProbe(
  model: Model,
  { harmful, benign }: ConversationSet,
  onRead: () => void = () => {},
): Promise<Detector> {
  const states = new HiddenStates(model);
  try {
    const width = model.config.hiddenSize;
    const share = Math.floor(MOST_VALUES / (width * (harmful.length + benign.length)));
    const most = Math.max(1, share);
    const values: Float32Array[] = [];
    const labels: number[] = [];
    for (const [label, conversations] of [benign, harmful].entries()) {
      for (const { sequence, onset } of conversations) {
        const rows = await states.read(sequence);
        const from = label === 1 ? (onset ?? 0) : 0;
        for (const position of spread(from, rows.length / width, most)) {
          values.push(rows.slice(position * width, (position + 1) * width));
          labels.push(label);
        }
        onRead();
      }
    }
    const probe = fitStandardised(values, Uint8Array.from(labels), width);
    const highest: number[] = [];
    for (const { sequence } of benign) {
      highest.push(Math.max(...logOdds(probe, await states.read(sequence))));
      onRead();
    }
    return detector(model, probe, ownThreshold(highest));
  } finally {
    states.dispose();
  }
}

function detector(model: Model, probe: LinearClassifier, threshold: number): Detector {
  return {
    name: "linear probe",
    rule: `log-odds >= ${threshold.toFixed(3)}`,
    async read(conversations: readonly Conversation[]): Promise<Reading[]> {
      const states = new HiddenStates(model);
      const readings: Reading[] = [];
      try {
        for (const { sequence } of conversations) {
          const along = logOdds(probe, await states.read(sequence));
          const first = along.findIndex((value) => value >= threshold);
          readings.push({
            score: Math.max(...along),
            flagged: first >= 0,
            first: first < 0 ? null : first,
          });
        }
      } finally {
        states.dispose();
      }
      return readings;
    },
  };
}

/** The residual stream of a model without an adapter. Reuses its memory. */
class HiddenStates {
  readonly #arena: Arena;

  constructor(readonly model: Model) {
    this.#arena = new Arena(model.backend);
  }

  /** After the last norm, before each token of the response and after the last: (n + 1, hidden). */
  async read(sequence: Pick<FlagSequence, "prompt" | "response">): Promise<Float32Array> {
    this.#arena.reset();
    const tape = new Tape(this.#arena, false);
    return responseRows(tape, this.model, sequence, undefined, true).hidden.read();
  }

  dispose(): void {
    this.#arena.dispose();
  }
}

/** Integers from `from` to below `to`, all of them or `most` evenly spaced. */
function spread(from: number, to: number, most: number): number[] {
  const count = Math.min(most, Math.max(0, to - from));
  return Array.from({ length: count }, (_, i) => from + Math.floor((i * (to - from)) / count));
}

/** Fits to features of mean 0 and variance 1, so that the penalty treats all alike; the weights are for raw ones. */
function fitStandardised(rows: Float32Array[], labels: Uint8Array, width: number): LinearClassifier {
  const means = new Float64Array(width);
  const deviations = new Float64Array(width);
  for (const row of rows)
    for (let j = 0; j < width; j++) means[j] = (means[j] as number) + (row[j] as number);
  for (let j = 0; j < width; j++) means[j] = (means[j] as number) / rows.length;
  for (const row of rows) {
    for (let j = 0; j < width; j++) {
      row[j] = (row[j] as number) - (means[j] as number);
      deviations[j] = (deviations[j] as number) + (row[j] as number) ** 2;
    }
  }
  for (let j = 0; j < width; j++) deviations[j] = Math.sqrt((deviations[j] as number) / rows.length) || 1;
  for (const row of rows) {
    for (let j = 0; j < width; j++) row[j] = (row[j] as number) / (deviations[j] as number);
  }
  const fitted = fitLogistic(denseRows(rows, width), labels, { l2: 1 / rows.length });
  const weights = fitted.weights.map((weight, j) => weight / (deviations[j] as number));
  const shift = weights.reduce((sum, weight, j) => sum + weight * (means[j] as number), 0);
  return { weights, bias: fitted.bias - shift };
}

function denseRows(rows: readonly Float32Array[], width: number): FeatureRows {
  return {
    count: rows.length,
    width,
    dot(row, weights) {
      const values = rows[row] as Float32Array;
      let sum = 0;
      for (let j = 0; j < width; j++) sum += (values[j] as number) * (weights[j] as number);
      return sum;
    },
    addTo(target, row, factor) {
      const values = rows[row] as Float32Array;
      for (let j = 0; j < width; j++) target[j] = (target[j] as number) + factor * (values[j] as number);
    },
  };
}

/** Log-odds of each row of hidden states. */
function logOdds({ weights, bias }: LinearClassifier, states: Float32Array): number[] {
  const width = weights.length;
  return Array.from({ length: states.length / width }, (_, row) => {
    let sum = bias;
    for (let j = 0; j < width; j++) sum += (states[row * width + j] as number) * (weights[j] as number);
    return sum;
  });
}
