import { openFiles } from "../formats/files.js";
import { Fields, parseObject } from "../formats/json.js";
import type { TrainingCurve } from "./evaluation.js";

/** What `train` leaves in an adapter folder: a line of JSON a step. */
const LOG = "metrics.jsonl";

/** Numbers of a line that are no term of the loss. */
const NO_TERMS = new Set(["step", "loss", "lr", "holdout_loss", "bits_per_byte", "tokens_per_second"]);

/**
 * The course of an adapter's training; null where its folder brings no log. Node only.
 * @throws FormatError naming the line that is none
 */
export async function readTrainingCurve(adapter: string): Promise<TrainingCurve | null> {
  const files = await openFiles(adapter);
  if (!files.has(LOG)) return null;
  const lines = (await files.text(LOG)).split("\n").filter((line) => line.trim() !== "");
  const steps = lines.map((line, i) => {
    const where = `${files.describe(LOG)}:${i + 1}`;
    const fields = new Fields(where, parseObject(line, where, "the line"));
    const loss = fields.get("loss");
    if (typeof loss !== "number") return fields.fail("loss", "must be a number");
    const terms = Object.entries(fields.values).filter(
      (entry): entry is [string, number] => typeof entry[1] === "number" && !NO_TERMS.has(entry[0]),
    );
    return { step: fields.integer("step"), loss, terms: Object.fromEntries(terms) };
  });
  return { adapter, steps };
}
