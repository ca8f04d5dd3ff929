import { FormatError } from "../errors.js";
import { forward, head } from "../model/forward.js";
import { Tape } from "../tape.js";
import { Arena } from "../tensor.js";
import type { FlaggedModel } from "./vocab.js";

/** Relative rounding of a dot product of f32 that is summed in another order. */
const TOLERANCE = 1e-3;

/**
 * Tests that the trained row is really in the head: the flag's logit is the row's product with the residual
 * stream, and the row is not what it was before training. Where a tool unties embedding and head on the way, the
 * head keeps the untrained row, P(flag) is 0 everywhere, and every metric reads "never flags".
 * @throws FormatError that says what is wrong
 */
export async function selfTest(flagged: FlaggedModel, file: string): Promise<void> {
  const { model, overlay, flagId, initial } = flagged;
  const rows = overlay.rows;
  if (!rows) throw new FormatError(file, "puts no row into the vocabulary");
  const [input, output] = [await rows.input.read(), await rows.output.read()];
  const width = model.config.hiddenSize;
  const isUntrained = (row: Float32Array, first: Float32Array) =>
    row.subarray(0, width).every((x, i) => x === first[i]);
  if (isUntrained(output, initial.output) && !isUntrained(input, initial.input)) {
    throw new FormatError(
      file,
      "trains the flag's embedding, but the head has its untrained row: it never flags",
    );
  }

  const arena = new Arena(model.backend, 1 << 20);
  try {
    const tape = new Tape(arena, false);
    const hidden = forward(tape, model, [model.config.bosId ?? 0], { overlay });
    const logits = await head(tape, model, hidden, overlay).read();
    const x = await hidden.read();
    const products = x.map((value, i) => value * (output[i] as number));
    const expected = products.reduce((sum, value) => sum + value, 0);
    const scale = products.reduce((sum, value) => sum + Math.abs(value), 1e-6);
    const found = logits[flagId];
    if (found === undefined || !(Math.abs(found - expected) <= TOLERANCE * scale)) {
      throw new FormatError(
        file,
        `the flag's logit is ${found}, but its row gives ${expected}: the row is not in the head`,
      );
    }
  } finally {
    arena.dispose();
  }
}
