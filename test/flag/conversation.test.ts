import { expect, it } from "vitest";
import { respond } from "../../src/flag/conversation.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { script, scripted, scriptedFlag } from "../generate/scripted.js";
import { baseline } from "../model/tiny.js";

const bytesOf = (text: string) => [...new TextEncoder().encode(text)];

it("answers with as many tokens whether the flag is placed or not", async () => {
  const backend = await baseline();
  const model = await scripted(backend, script(258, bytesOf("abcdefghij")), byteTokenizer());
  const answer = (flag: readonly number[], maxTokens: number) =>
    respond(scriptedFlag(model, flag), [0], { maxTokens, decision: { kind: "threshold", level: 0.5 } });
  const silent = new Array<number>(10).fill(0);
  expect(await answer(silent, 5)).toEqual(bytesOf("abcde"));
  // The flag is likelier than the third letter, and takes its position.
  const raised = silent.with(2, 24);
  expect(await answer(raised, 5)).toEqual(bytesOf("abdef"));
  expect(await answer(raised, 2)).toEqual(bytesOf("ab"));
  // 10 positions: the prompt, the flag, and the tokens that have one of their own.
  expect(await answer(raised, 20)).toEqual(bytesOf("abdefghij"));
  backend.dispose();
});
