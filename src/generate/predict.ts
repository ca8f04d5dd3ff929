import { forward, head } from "../model/forward.js";
import type { KVCache } from "../model/kv-cache.js";
import type { Overlay } from "../model/lora.js";
import type { Model } from "../model/model.js";
import { argmax } from "../ops/argmax.js";
import { crossEntropy } from "../ops/cross-entropy.js";
import { embedding } from "../ops/embedding.js";
import { Tape } from "../tape.js";
import type { Arena, Tensor } from "../tensor.js";

/** What the model says of the token after some ids. */
export interface Prediction {
  readonly likeliest: number;
  readonly logSumExp: number;
  /** All logits, where they were asked for. */
  readonly logits: Float32Array | undefined;
  /** Those of the watched ids, in their order. */
  readonly watched: Float32Array | undefined;
  /** One logit. Valid, as `allLogits`, until the next prediction. */
  logitOf(id: number): number | Promise<number>;
  allLogits(): Promise<Float32Array>;
}

/** Ids of a sequence on their way through the model, and what is to be known of the token after them. */
export interface Piece {
  readonly ids: readonly number[];
  /** Whether a token follows these: no other has a prediction. */
  readonly isLast: boolean;
  /** Ids whose logits alone a monitor wants. */
  readonly watches?: readonly number[] | undefined;
}

/** What a pass runs with. */
export interface PredictOptions {
  readonly overlay: Overlay | undefined;
  /** Of the longest sequence, with what is yet to come of its prompt: see `forward`. */
  readonly sequenceLength: number;
  /** Filled with the logits of all predictions, where there is one: room for (pieces, vocabulary). */
  readonly logits: Float32Array<ArrayBuffer> | undefined;
}

/**
 * Puts the ids of every sequence of a cache through the model in one pass, behind those that it holds.
 * @returns a prediction for each piece that is its sequence's last, else undefined
 */
export async function predict(
  arena: Arena,
  model: Model,
  cache: KVCache,
  pieces: readonly Piece[],
  { overlay, sequenceLength, logits }: PredictOptions,
): Promise<(Prediction | undefined)[]> {
  arena.reset();
  const tape = new Tape(arena, false);
  const counts = pieces.map(({ ids }) => ids.length);
  const length = Math.max(...counts);
  // Shorter pieces are padded on the right, where no query of theirs sees it.
  const ids = pieces.flatMap((piece) => [
    ...piece.ids,
    ...new Array<number>(length - piece.ids.length).fill(0),
  ]);
  const all = forward(tape, model, ids, { batch: pieces.length, overlay, cache, counts, sequenceLength });

  const last = [...pieces.keys()].filter((i) => pieces[i]?.isLast);
  if (last.length === 0) return pieces.map(() => undefined);
  const positions = Uint32Array.from(last, (i) => i * length + (counts[i] as number) - 1);
  const isAll = positions.length === ids.length;
  const scores = head(tape, model, isAll ? all : embedding(tape, all, tape.from(positions)), overlay);
  const [rows = 0, vocabulary = 0] = scores.shape;
  const first = argmax(tape, scores);
  const loss = crossEntropy(tape, scores, first);
  const likeliest = first.readIds();
  // A single row's largest comes with the others in one turn; of several only the host adds up where they lie.
  const highest =
    rows === 1
      ? embedding(tape, scores.reshape([vocabulary, 1]), first).read()
      : likeliest.then((ids) =>
          some(
            scores,
            Array.from(ids, (id, row) => row * vocabulary + id),
          ),
        );
  const watched = Promise.all(
    last.map((i, row) => {
      const watches = pieces[i]?.watches;
      return (
        watches &&
        some(
          scores,
          watches.map((id) => row * vocabulary + id),
        )
      );
    }),
  );
  const [best, nats, tops, few, whole] = await Promise.all([
    likeliest,
    loss.read(),
    highest,
    watched,
    logits && scores.read(logits.subarray(0, scores.size)),
  ]);
  const found = last.map((_, row): Prediction => {
    const [id = 0, top = 0] = [best[row], tops[row]];
    const own = whole?.subarray(row * vocabulary, (row + 1) * vocabulary);
    return {
      likeliest: id,
      logSumExp: top + (nats[row] as number),
      logits: own,
      watched: few[row],
      logitOf(other) {
        if (other === id) return top;
        if (own) return own[other] ?? Number.NaN;
        return scores.at(row * vocabulary + other);
      },
      allLogits: async () => own ?? scores.rowBlock(row, 1).read(),
    };
  });
  return pieces.map(({ isLast }) => (isLast ? found.shift() : undefined));
}

/** A few numbers of a tensor. */
async function some(tensor: Tensor, indices: readonly number[]): Promise<Float32Array> {
  return Float32Array.from(await Promise.all(indices.map((index) => tensor.at(index))));
}
