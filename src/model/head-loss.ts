import { ALIGNMENT } from "../backend.js";
import { crossEntropy } from "../ops/cross-entropy.js";
import { type KlDirection, kl } from "../ops/kl.js";
import { view } from "../ops/view.js";
import { Tape } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { head, headWeight, vocabularySize } from "./forward.js";
import type { Overlay } from "./lora.js";
import type { Model } from "./model.js";

/**
 * Rows of a chunk at most. Every chunk goes through the whole head again, which at a vocabulary of 32000 (dim 288)
 * costs chunks of 64 rows 4 % of a training step, and those of 256 nothing (measured, one thread).
 */
const MOST_ROWS = 256;

/** Bytes of logits in memory at once, where the fewest rows need no more. */
const CHUNK_BYTES = 32 << 20;

/** The fewest rows of a chunk: so many that chunks of what has one number a row begin at aligned offsets. */
const ROW_STEP = ALIGNMENT / 4;

/** How many rows of `width` logits make a chunk. */
function chunkRows(width: number): number {
  const steps = Math.floor(CHUNK_BYTES / (width * 4 * ROW_STEP));
  return Math.min(MOST_ROWS, ROW_STEP * Math.max(1, steps));
}

/** Rows of the residual stream, and what lies over the head that makes logits of them. */
export interface HeadInput {
  /** (rows, hidden) */
  readonly hidden: Tensor;
  readonly overlay?: Overlay | undefined;
}

/** The rows of a tensor that belong to the chunk at hand. */
export type Part = (x: Tensor) => Tensor;

/**
 * Goes through logits a chunk of rows at a time, so that the matrix (rows, vocabulary) never exists: `body` makes the
 * logits of its rows with `head` under the overlay that it is given, and ends their graph, whose backward runs at
 * once. So the gradient of the hidden rows is complete when this returns, and a chunk's memory serves the next.
 * What the overlay's rows get waits for the tape's backward; the gradient of the head's own matrix, where that is
 * trained, does not, since it is as large as the matrix: what is not to be trained on goes on a tape that does not
 * record.
 */
export function inChunks(
  tape: Tape,
  model: Model,
  { hidden, overlay }: HeadInput,
  body: (tape: Tape, part: Part, overlay: Overlay | undefined) => void,
): void {
  const [count = 0] = hidden.shape;
  const step = chunkRows(vocabularySize(model.config, overlay));
  const waiting = tape.recording ? withWaitingGradient(tape, overlay) : overlay;
  if (tape.recording) {
    // Gradients that outlive a chunk must lie in front of what it gives back.
    const kept = [hidden, headWeight(model, overlay), waiting?.rows?.output];
    for (const x of kept) if (x?.requiresGrad) tape.grad(x);
  }
  for (let from = 0; from < count; from += step) {
    const mark = tape.arena.mark();
    const chunk = new Tape(tape.arena, tape.recording);
    body(chunk, (x) => x.rows(from, Math.min(count, from + step)), waiting);
    chunk.backward();
    tape.arena.release(mark);
  }
}

/** The same overlay, whose head rows hand the gradient that they gather on in the tape's backward. */
function withWaitingGradient(tape: Tape, overlay: Overlay | undefined): Overlay | undefined {
  const rows = overlay?.rows;
  if (!rows) return overlay;
  const output = view(tape, rows.output, rows.output.shape);
  return {
    rows: { ...rows, output },
    lora: (name) => overlay.lora(name),
    weight: (name) => overlay.weight?.(name),
  };
}

/**
 * The cross-entropy of the next token after every hidden row, in nats: (rows); see `crossEntropy`. With weights its
 * gradient goes to the hidden rows, the head and the overlay's rows; see `inChunks` for when.
 * @param targets u32 (rows)
 * @param weights (rows)
 */
export function headCrossEntropy(
  tape: Tape,
  model: Model,
  { hidden, overlay }: HeadInput,
  targets: Tensor,
  weights?: Tensor,
): Tensor {
  const losses = tape.empty(hidden.shape.slice(0, 1));
  inChunks(tape, model, { hidden, overlay }, (chunk, part, over) => {
    const logits = head(chunk, model, part(hidden), over);
    crossEntropy(chunk, logits, part(targets), { weights: weights && part(weights), into: part(losses) });
  });
  return losses;
}

/**
 * The divergence of what the model says after every hidden row from what a reference says after its own, in nats:
 * (rows); see `kl`. The gradient goes where that of `headCrossEntropy` goes; the reference gets none.
 * @param reference as many rows, of a pass that was not recorded
 * @param weights (rows)
 */
export function headKl(
  tape: Tape,
  model: Model,
  { hidden, overlay }: HeadInput,
  reference: HeadInput,
  weights: Tensor,
  direction: KlDirection,
): Tensor {
  const divergences = tape.empty(hidden.shape.slice(0, 1));
  inChunks(tape, model, { hidden, overlay }, (chunk, part, over) => {
    const logits = head(chunk, model, part(hidden), over);
    const refLogits = head(new Tape(chunk.arena, false), model, part(reference.hidden), reference.overlay);
    kl(chunk, logits, refLogits, { weights: part(weights), direction, into: part(divergences) });
  });
  return divergences;
}
