import { FormatError } from "../errors.js";
import { isObject, parseObject } from "./json.js";
import type { ModelFiles } from "./source.js";

/** A chat template in Jinja, and the file that it comes from. */
export interface ChatSource {
  readonly template: string;
  readonly file: string;
}

/**
 * The chat template of a Hugging Face folder, or undefined where it has none: a file of its own comes before the
 * field of `tokenizer_config.json`, and of several the one named `default`, as transformers has it.
 */
export async function readChatSource(
  files: ModelFiles,
  tokenizerConfig: Readonly<Record<string, unknown>>,
): Promise<ChatSource | undefined> {
  if (files.has("chat_template.jinja")) {
    const file = files.describe("chat_template.jinja");
    return { template: await files.text("chat_template.jinja"), file };
  }
  const [name, json] = files.has("chat_template.json")
    ? [
        "chat_template.json",
        parseObject(await files.text("chat_template.json"), files.describe("chat_template.json")),
      ]
    : ["tokenizer_config.json", tokenizerConfig];
  const file = files.describe(name);
  const value = json.chat_template ?? undefined;
  if (value === undefined || typeof value === "string")
    return value === undefined ? value : { template: value, file };
  const list = Array.isArray(value) ? value.filter(isObject) : [];
  const found = list.find((item) => item.name === "default") ?? list[0];
  if (typeof found?.template === "string") return { template: found.template, file };
  throw new FormatError(file, "'chat_template' must be a text, or a list of names and templates");
}
