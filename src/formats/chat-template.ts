import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { FormatError, UnsupportedError } from "../errors.js";
import type { ChatTemplate, Message } from "../tokenizer.js";
import type { ChatSource } from "./chat-source.js";
import { isObject, messageOf } from "./json.js";

type Json = Readonly<Record<string, unknown>>;

/** Templates read these as variables: the names of tokens in `tokenizer_config.json`. */
const TOKENS = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];

/** Unicode has these for a program's own use; no text is meant to hold them. */
const NONCHARACTERS = Array.from({ length: 32 }, (_, i) => String.fromCharCode(0xfdd0 + i));

/** What `raise_exception` throws, to be told from the errors of the template engine. */
class Refusal extends Error {}

/** What every template may use: Jinja's constants in both spellings, and transformers' functions. */
const GLOBALS = {
  ...{ true: true, false: false, none: null, True: true, False: false, None: null },
  range(first: number, second?: number, step = 1): number[] {
    const [start, stop] = second === undefined ? [0, first] : [first, second];
    return Array.from({ length: Math.max(0, Math.ceil((stop - start) / step)) }, (_, i) => start + i * step);
  },
  raise_exception(message: unknown): never {
    throw new Refusal(String(message));
  },
};

/**
 * @param config the fields of `tokenizer_config.json`, of which a template reads the names of tokens
 * @param names of the special tokens, which no message may bring about
 */
export function chatTemplate(
  { template, file }: ChatSource,
  config: Json,
  names: readonly string[],
): ChatTemplate {
  // A template is only read where it is used: many are for models that nobody chats with.
  let program: ReturnType<typeof parse> | undefined;
  return {
    render(messages, options = {}) {
      const { open = false, addGenerationPrompt = !open, now = new Date() } = options;
      const [guard = "", end = ""] = unused(messages);
      const turns = messages.map(({ role, content }, i) => {
        const isLast = open && i === messages.length - 1;
        const text = options.special ? content : guarded(content, names, guard);
        return { role, content: isLast ? withEnd(text, end) : text };
      });
      try {
        // White space as transformers has it.
        program ??= parse(tokenize(template, { lstrip_blocks: true, trim_blocks: true }));
        const text = run(program, {
          ...GLOBALS,
          tools: null,
          documents: null,
          ...tokenNames(config),
          ...options.variables,
          messages: turns,
          add_generation_prompt: addGenerationPrompt,
          strftime_now: (format: string) => strftime(now, format),
        });
        return { text: open ? before(text, end, file) : text, guard };
      } catch (cause) {
        if (cause instanceof FormatError) throw cause;
        if (cause instanceof Refusal) {
          throw new FormatError(file, `the chat template refuses the messages: ${cause.message}`, { cause });
        }
        throw new UnsupportedError(`${file}: the chat template does not run: ${messageOf(cause)}`, { cause });
      }
    },
  };
}

/**
 * The text of a template. The library's own `Template` would take neither our clock nor an error of ours for
 * `raise_exception`: it lets no variable stand in for its globals.
 */
function run(program: ReturnType<typeof parse>, variables: Json): string {
  const environment = new Environment();
  for (const [name, value] of Object.entries(variables)) environment.set(name, value);
  return String(new Interpreter(environment).run(program).value);
}

function tokenNames(config: Json): Record<string, string> {
  const entries = TOKENS.flatMap((field) => {
    const token = config[field];
    const name = isObject(token) ? token.content : token;
    return typeof name === "string" ? [[field, name]] : [];
  });
  return Object.fromEntries(entries);
}

/** Characters that no message has. */
function unused(messages: readonly Message[]): string[] {
  return NONCHARACTERS.filter((character) => messages.every(({ content }) => !content.includes(character)));
}

/**
 * A message with the guard before every name of a special token in it, and before what could be one together with the
 * template's text around it. All else stays as it is, so that a template which looks into the text (trims it, splits
 * it at `</think>`) finds what it looks for.
 */
function guarded(content: string, names: readonly string[], guard: string): string {
  const start = content.length - content.trimStart().length;
  const end = content.trimEnd().length;
  const isName = (at: number) =>
    names.some((name) => content.startsWith(name, at) || (at < end && isBegun(name, content.slice(at, end))));
  const completes = (name: string) => Array.from(name, (_, i) => i).some((i) => i > 0 && isRest(name, i));
  const isRest = (name: string, i: number) => content.slice(start, end).startsWith(name.slice(i));
  const firsts = new Set(names.map((name) => name.charCodeAt(0)));
  let result = "";
  let copied = 0;
  for (let at = 0; at < content.length; at++) {
    const isFirst = firsts.has(content.charCodeAt(at));
    if (!((isFirst && isName(at)) || (at === start && names.some(completes)))) continue;
    result += content.slice(copied, at) + guard;
    copied = at;
  }
  return result + content.slice(copied);
}

/** Whether the text is a beginning of the name. */
function isBegun(name: string, text: string): boolean {
  return text.length < name.length && name.startsWith(text);
}

/** The content with a mark behind its last character, white space left out. */
function withEnd(content: string, end: string): string {
  return `${content.trimEnd()}${end}`;
}

function before(text: string, end: string, file: string): string {
  const at = text.lastIndexOf(end);
  if (at < 0) throw new FormatError(file, "the chat template leaves the last message out");
  return text.slice(0, at);
}

/** The fields of Python's `strftime` that templates use, in English. */
function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const named = (options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat("en-US", options).format(date);
  return format.replace(/%[YymdbBaAHMS%]/g, (field) => {
    switch (field) {
      case "%Y":
        return String(date.getFullYear());
      case "%y":
        return two(date.getFullYear() % 100);
      case "%m":
        return two(date.getMonth() + 1);
      case "%d":
        return two(date.getDate());
      case "%b":
        return named({ month: "short" });
      case "%B":
        return named({ month: "long" });
      case "%a":
        return named({ weekday: "short" });
      case "%A":
        return named({ weekday: "long" });
      case "%H":
        return two(date.getHours());
      case "%M":
        return two(date.getMinutes());
      case "%S":
        return two(date.getSeconds());
      default:
        return "%";
    }
  });
}
