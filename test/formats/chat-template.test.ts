import { Template } from "@huggingface/jinja";
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { readChatSource } from "../../src/formats/chat-source.js";
import { chatTemplate } from "../../src/formats/chat-template.js";
import { openFiles } from "../../src/formats/files.js";
import { huggingFaceTokenizer } from "../../src/formats/hf-tokenizer.js";
import { applyChat, byteTokenizer, type ChatOptions, type Message } from "../../src/tokenizer.js";
import { CONVERSATIONS, chatTokenizer, chatTokenizerFiles, TEMPLATES, type TemplateName } from "./chats.js";
import { rejection } from "./helpers.js";

const NAMES = Object.keys(TEMPLATES) as TemplateName[];
const CASES = NAMES.flatMap((name) => CONVERSATIONS.map((messages, i) => [name, i, messages] as const));

/** As transformers does it: the whole text rendered, then encoded with its special tokens. */
function plainIds(template: string, messages: readonly Message[], options: object = {}): number[] {
  const { tokenizerJson, tokenizerConfig } = chatTokenizerFiles(template);
  const tokens = { bos_token: "<bos>", eos_token: "<eos>" };
  const text = new Template(template).render({
    messages,
    add_generation_prompt: true,
    ...tokens,
    ...options,
  });
  return new LibraryTokenizer(tokenizerJson, tokenizerConfig).encode(text, { add_special_tokens: false }).ids;
}

describe("a conversation in a template", () => {
  it.each(CASES)("%s: conversation %i has the ids of its text as a whole", (name, _, messages) => {
    const tokenizer = chatTokenizer(TEMPLATES[name]);
    expect(applyChat(tokenizer, messages)).toEqual(plainIds(TEMPLATES[name], messages));
    expect(applyChat(tokenizer, messages, { addGenerationPrompt: false })).toEqual(
      plainIds(TEMPLATES[name], messages, { add_generation_prompt: false }),
    );
  });

  it("has a word's space where SentencePiece puts it: at the start of the text alone", () => {
    const template = "{{ bos_token }}{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}";
    const { tokenizerConfig } = chatTokenizerFiles(template);
    const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: false };
    const names = ["<bos>", "<eos>", "[INST]", "[/INST]"];
    const pieces = ["▁", "a", "b", "▁a", "▁b"];
    const json = {
      added_tokens: names.map((content, id) => ({ id, content, special: true, normalized: false })),
      normalizer: null,
      pre_tokenizer: metaspace,
      post_processor: null,
      decoder: metaspace,
      model: {
        type: "BPE",
        unk_token: "<bos>",
        vocab: Object.fromEntries([...names, ...pieces].map((piece, id) => [piece, id])),
        merges: ["▁ a", "▁ b"],
      },
    };
    const tokenizer = huggingFaceTokenizer(json, tokenizerConfig, "t", (specials) =>
      chatTemplate({ template, file: "t" }, tokenizerConfig, specials),
    );
    const [A, B] = [json.model.vocab.a, json.model.vocab["▁b"]];
    expect(applyChat(tokenizer, [{ role: "user", content: "a b" }])).toEqual([0, 2, A, B, 3]);
    expect(tokenizer.encode("a b")).toEqual([json.model.vocab["▁a"], B]);
  });

  /** The names of special tokens, pieces of them, and what templates put beside them. */
  const shards = [
    ...["<|im_start|>", "<|im_end|>", "<|end|>", "[INST]", "[/INST]", "<bos>", "<eos>", "<|user|>"],
    ...[
      "<|",
      "|>",
      "<|im_",
      "end|>",
      "[",
      "INST]",
      "user",
      "\n",
      " ",
      "<",
      "</think>",
      "\uFDD0",
      "\uD800",
      "木",
    ],
  ];
  const content = fc.array(fc.constantFrom(...shards), { maxLength: 6 }).map((parts) => parts.join(""));

  it.each(NAMES)("%s: no message brings a special token about, and none is lost", (name) => {
    const tokenizer = chatTokenizer(TEMPLATES[name]);
    const specials = (ids: readonly number[]) => ids.filter((id) => tokenizer.bytes(id).length === 0);
    const roles = ["user", "assistant", "user"];
    const expected = specials(
      applyChat(
        tokenizer,
        roles.map((role) => ({ role, content: "x" })),
      ),
    );
    fc.assert(
      fc.property(fc.array(content, { minLength: 3, maxLength: 3 }), (contents) => {
        const messages = contents.map((text, i) => ({ role: roles[i] ?? "user", content: text }));
        const ids = applyChat(tokenizer, messages);
        expect(specials(ids)).toEqual(expected);
        // All that the messages say is there, as the template has it when nothing is special.
        const options = { bos_token: "", eos_token: "", add_generation_prompt: true };
        const text = new Template(TEMPLATES[name]).render({ messages, ...options });
        const visible = (value: string) =>
          tokenizer
            .decode(tokenizer.encode(value))
            .replace(/<\|(im_start|start|end|im_end|eot|user|assistant)\|>|\[\/?INST\]/g, "");
        expect(visible(tokenizer.decode(ids))).toBe(visible(text));
      }),
      { numRuns: 60 },
    );
  });

  it("has special tokens from messages where that is asked for", () => {
    const tokenizer = chatTokenizer(TEMPLATES.chatml);
    const messages = [{ role: "user", content: "a<|im_end|><eos>" }];
    expect(applyChat(tokenizer, messages, { special: true })).toEqual(plainIds(TEMPLATES.chatml, messages));
    expect(applyChat(tokenizer, messages)).not.toEqual(plainIds(TEMPLATES.chatml, messages));
  });

  it.each([
    ["chatml", "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n a b"],
    ["headers", "<bos><|start|>user<|end|>\n\nq<|eot|><|start|>assistant<|end|>\n\na b"],
    ["instructions", "<bos>[INST] q[/INST]  a b"],
  ] as const)("%s: ends with the last message where it is left open", (name, text) => {
    const tokenizer = chatTokenizer(TEMPLATES[name]);
    const messages = [
      { role: "user", content: "q" },
      { role: "assistant", content: " a b \n" },
    ];
    expect(applyChat(tokenizer, messages, { open: true })).toEqual(tokenizer.encode(text, { special: true }));
  });
});

describe("what a template is told", () => {
  const render = (template: string, options: ChatOptions = {}) =>
    chatTokenizer(template).chat?.render([{ role: "user", content: "q" }], options).text;

  it("are the names of tokens, variables and the date, in English", () => {
    expect(render("{{ bos_token }}{{ tools is none }}{{ x }}", { variables: { x: 3 } })).toBe("<bos>true3");
    const now = new Date(2024, 1, 5, 7, 8, 9);
    expect(render("{{ strftime_now('%d %b %Y|%B %A %a %m/%y %H:%M:%S %%') }}", { now })).toBe(
      "05 Feb 2024|February Monday Mon 02/24 07:08:09 %",
    );
  });

  it.each([
    ["{{ raise_exception('no system role') }}", FormatError, /refuses the messages: no system role/],
    ["{{ unheard_of(1) }}", UnsupportedError, /tokenizer_config.json: the chat template does not run: /],
    ["{{ messages | unheard_of }}", UnsupportedError, /unheard_of/],
    ["{% for %}", UnsupportedError, /does not run/],
    ["nothing", FormatError, /leaves the last message out/],
  ] as const)("is named in an error where %s", (template, kind, message) => {
    const error = (() => {
      try {
        return render(template, { open: true });
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toBeInstanceOf(kind);
    expect(String(error)).toMatch(message);
    expect(String(error)).not.toContain("\n");
  });
});

describe("where a template lies", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const read = async (files: Record<string, string>, config: Record<string, unknown> = {}) => {
    const entries = Object.entries(files).map(([name, text]) => [name, bytes(text)] as const);
    return (await readChatSource(await openFiles(Object.fromEntries(entries)), config))?.template;
  };

  it("is a file of its own before the tokenizer's configuration", async () => {
    const json = { "chat_template.json": '{"chat_template": "json"}' };
    const config = { chat_template: "config" };
    expect(await read({ a: "" })).toBeUndefined();
    expect(await read({ a: "" }, config)).toBe("config");
    expect(await read(json, config)).toBe("json");
    expect(await read({ ...json, "chat_template.jinja": "jinja" }, config)).toBe("jinja");
    const several = [
      { name: "tool_use", template: "tools" },
      { name: "default", template: "plain" },
    ];
    expect(await read({ a: "" }, { chat_template: several })).toBe("plain");
    expect(await rejection(read({ a: "" }, { chat_template: 3 }))).toBeInstanceOf(FormatError);
  });
});

it("names of special tokens become them in plain text where that is asked for", () => {
  const tokenizer = byteTokenizer();
  expect(tokenizer.encode("a<eos>", { special: true })).toEqual([97, 257]);
  expect(tokenizer.encode("a<eos>")).toEqual([97, 60, 101, 111, 115, 62]);
  expect(tokenizer.encode("a!<eos>b!", { special: true, guard: "!" })).toEqual([
    97, 60, 101, 111, 115, 62, 98,
  ]);
  expect(() => applyChat(tokenizer, [])).toThrow("the model has no chat template");
});
