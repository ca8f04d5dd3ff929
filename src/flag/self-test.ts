import { FormatError } from "../errors.js";
import { forward, head } from "../model/forward.js";
import { Tape } from "../tape.js";
import { Arena } from "../tensor.js";
import type { FlaggedModel } from "./vocab.js";

/** Relative rounding of a dot product of f32 that is summed in another order. */
const TOLERANCE = 1e-3;

/**
 * Tests that every trained row is really in the head: a flag's logit is its row's product with the residual stream,
 * and the row is not what it was before training. Where a tool unties embedding and head on the way, the head keeps
 * the untrained row, P(flag) is 0 everywhere, and every metric reads "never flags".
 * @throws FormatError that says what is wrong
 */
export async function selfTest(flagged: FlaggedModel, file: string): Promise<void> {
  const { model, overlay, flagIds, initial } = flagged;
  const rows = overlay.rows;
  if (!rows) throw new FormatError(file, "puts no row into the vocabulary");
  const [inputs, outputs] = [await rows.input.read(), await rows.output.read()];
  const width = model.config.hiddenSize;
  const [hidden, logits] = await firstPass(flagged);
  for (const [i, flagId] of flagIds.entries()) {
    const rowOf = (values: Float32Array) => values.subarray(i * width, (i + 1) * width);
    const isUntrained = (row: Float32Array, first: Float32Array) =>
      row.every((x, c) => x === rowOf(first)[c]);
    const [input, output] = [rowOf(inputs), rowOf(outputs)];
    const name = flagIds.length === 1 ? "the flag" : `flag ${flagId}`;
    if (isUntrained(output, initial.output) && !isUntrained(input, initial.input)) {
      throw new FormatError(
        file,
        `trains ${name}'s embedding, but the head has its untrained row: it never flags`,
      );
    }
    const products = hidden.map((value, c) => value * (output[c] as number));
    const expected = products.reduce((sum, value) => sum + value, 0);
    const scale = products.reduce((sum, value) => sum + Math.abs(value), 1e-6);
    const found = logits[flagId];
    if (found === undefined || !(Math.abs(found - expected) <= TOLERANCE * scale)) {
      throw new FormatError(
        file,
        `${name}'s logit is ${found}, but its row gives ${expected}: the row is not in the head`,
      );
    }
  }
}

/** The residual stream after one token, (hidden), and the logits, (vocabulary). */
async function firstPass({ model, overlay }: FlaggedModel): Promise<[Float32Array, Float32Array]> {
  const arena = new Arena(model.backend, 1 << 20);
  try {
    const tape = new Tape(arena, false);
    const hidden = forward(tape, model, [model.config.bosId ?? 0], { overlay });
    const logits = head(tape, model, hidden, overlay);
    return [await hidden.read(), await logits.read()];
  } finally {
    arena.dispose();
  }
}
