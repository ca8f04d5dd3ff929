import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { fail, jsonLines, workshop } from "./run.js";

const folder = workshop();
const TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}> {{ m.content }}\n{% endfor %}";
const GENERATE = ["generate", "--model", "model", "--max-tokens", "3"];
/** What is generated, log-probabilities included: they tell one prompt from another. */
const generated = (...args: string[]) => jsonLines(folder(), ...GENERATE, ...args);

it("generate lays a prompt out in the model's chat template where that is asked for", async () => {
  const none = await fail(folder(), 2, ...GENERATE, "--prompt", "cat", "--chat");
  expect(none).toBe("--chat: the model has no chat template");
  await writeFile(join(folder(), "model", "chat_template.jinja"), TEMPLATE);
  const plain = ["user> cat\n", "system> dog\nuser> cat\n"];
  expect(await generated("--prompt", "cat", "--chat")).toEqual(await generated("--prompt", plain[0] ?? ""));
  expect(await generated("--prompt", "cat", "--system", "dog")).toEqual(
    await generated("--prompt", plain[1] ?? ""),
  );
  expect(await generated("--prompt", "cat")).not.toEqual(await generated("--prompt", plain[0] ?? ""));
  const message = await fail(folder(), 2, ...GENERATE, "--ids", "1", "--chat");
  expect(message).toContain("--ids");

  await writeFile(join(folder(), "model", "chat_template.jinja"), "{{ raise_exception('no\nsystem') }}");
  const refused = await fail(folder(), 1, ...GENERATE, "--prompt", "cat", "--chat");
  expect(refused).toBe("model/chat_template.jinja: the chat template refuses the messages: no system");
});
