import { FormatError } from "../errors.js";
import type { Message } from "../tokenizer.js";
import { type FilesInput, openFiles } from "./files.js";
import { Fields, isObject, messageOf, show } from "./json.js";

/** What a record may say about itself. */
export interface ExampleFacts {
  readonly harmful?: boolean;
  /** Character offset in the response by which harm has become evident. */
  readonly onset?: number;
  readonly category?: string;
  readonly language?: string;
}

/** A record of a data set: a prompt, answered or not, or a conversation. */
export type Example = ExampleFacts &
  (
    | { readonly prompt: string; readonly response?: string; readonly messages?: never }
    | { readonly messages: readonly Message[]; readonly prompt?: never; readonly response?: never }
  );

/**
 * Reads a JSON Lines file of examples. Blank lines, a byte-order mark and CRLF are passed over; fields that are not
 * known are ignored, and null counts as absent.
 * Throws FormatError naming file and line of the first bad record, and where there is no record at all.
 */
export async function readJsonLines(input: FilesInput): Promise<Example[]> {
  const files = await openFiles(input);
  if (files.main === null) throw new FormatError(files.name, "is a folder, expected a file of JSON lines");
  return parseJsonLines(await files.text(files.main), files.describe(files.main));
}

/** The same for text that is in memory; `file` is what messages name. */
export function parseJsonLines(text: string, file: string): Example[] {
  const examples: Example[] = [];
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  for (const [i, line] of lines.entries()) {
    if (line.trim() !== "") examples.push(parseExample(line, `${file}:${i + 1}`));
  }
  if (examples.length === 0) throw new FormatError(file, "holds no examples");
  return examples;
}

function parseExample(line: string, where: string): Example {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new FormatError(where, `is not valid JSON: ${messageOf(cause)}`, { cause });
  }
  if (!isObject(value)) throw new FormatError(where, `is not a JSON object: ${show(value)}`);

  const fields = new Fields(where, value);
  if (fields.has("messages")) {
    if (fields.has("prompt")) fields.fail("messages", "and 'prompt' exclude each other");
    const messages = readMessages(fields);
    const answer = messages.at(-1);
    return { messages, ...readFacts(fields, answer?.role === "assistant" ? answer.content : undefined) };
  }
  if (!fields.has("prompt")) throw new FormatError(where, "has neither 'prompt' nor 'messages'");
  const prompt = fields.string("prompt");
  const response = fields.has("response") ? fields.string("response") : undefined;
  return { prompt, ...(response !== undefined && { response }), ...readFacts(fields, response) };
}

function readMessages(fields: Fields): Message[] {
  const list = fields.get("messages");
  if (!Array.isArray(list) || list.length === 0)
    fields.fail("messages", "must be a list of messages, not empty");
  return list.map((item, i) => {
    if (!isObject(item)) fields.fail(`messages.${i}`, `must be an object, got ${show(item)}`);
    const message = new Fields(fields.file, item, `messages.${i}.`);
    return { role: message.string("role"), content: message.string("content") };
  });
}

function readFacts(fields: Fields, response: string | undefined): ExampleFacts {
  const facts: { -readonly [K in keyof ExampleFacts]: ExampleFacts[K] } = {};
  if (fields.has("harmful")) facts.harmful = fields.boolean("harmful");
  // At the end of the response at the latest; a caller may cut it before.
  if (fields.has("onset"))
    facts.onset = fields.integer("onset", { least: 0, most: response?.length ?? 2 ** 31 - 1 });
  if (fields.has("category")) facts.category = fields.string("category");
  if (fields.has("language")) facts.language = fields.string("language");
  return facts;
}
