import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readTrainingCurve } from "../../src/eval/training-log.js";
import { rejection, temporaryFolder } from "../formats/helpers.js";

async function logged(text: string): Promise<string> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "metrics.jsonl"), text);
  return folder;
}

describe("the log of a training", () => {
  it("gives the loss and its terms, and leaves out what is neither", async () => {
    const adapter = await logged(
      '{"step":1,"loss":3,"ce":1,"post":0.5,"benign":2,"lr":0.1,"tokens_per_second":9}\n' +
        '{"step":2,"loss":2,"ce":1,"post":0,"benign":1,"lr":0.1,"holdout_loss":4,"bits_per_byte":1}\n\n',
    );
    expect(await readTrainingCurve(adapter)).toEqual({
      adapter,
      steps: [
        { step: 1, loss: 3, terms: { ce: 1, post: 0.5, benign: 2 } },
        { step: 2, loss: 2, terms: { ce: 1, post: 0, benign: 1 } },
      ],
    });
  });

  it("may be missing", async () => {
    expect(await readTrainingCurve(await temporaryFolder())).toBeNull();
  });

  it.each([
    ['{"step":1,"loss":3}\n{"step":2,', /metrics\.jsonl:2: the line is not valid JSON/],
    ['{"step":1}', /metrics\.jsonl:1: 'loss' must be a number/],
    ['{"loss":1}', /metrics\.jsonl:1: 'step' is missing/],
  ])("%s is refused, by its line", async (text, message) => {
    expect((await rejection(readTrainingCurve(await logged(text)))).message).toMatch(message);
  });
});
