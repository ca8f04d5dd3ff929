import { byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { chatTemplate } from "../../src/formats/chat-template.js";
import { huggingFaceTokenizer } from "../../src/formats/hf-tokenizer.js";
import type { Tokenizer } from "../../src/tokenizer.js";

/** Templates with the features of those that models are published with: what they trim, refuse, and put where. */
export const TEMPLATES = {
  chatml:
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}" +
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
  headers:
    "{{- bos_token }}\n{%- for message in messages %}\n" +
    "    {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim + '<|eot|>' }}\n" +
    "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start|>assistant<|end|>\\n\\n' }}\n{%- endif %}\n",
  instructions:
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}" +
    "{%- else %}{%- set turns = messages %}{%- endif %}{{- bos_token }}{%- for message in turns %}" +
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}" +
    "{{- raise_exception('roles must alternate') }}{%- endif %}" +
    "{%- if message['role'] == 'user' %}{{- '[INST] ' + ((system + '\\n\\n') if loop.last and system is defined else '')" +
    " + message['content'] + '[/INST]' }}{%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}{%- endfor %}",
  roles:
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
  thinking:
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% set content = message.content %}" +
    "{% if message.role == 'assistant' and '</think>' in content %}" +
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ content }}<|im_end|>\n{% endfor %}" +
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
} as const;

export type TemplateName = keyof typeof TEMPLATES;

/** The special tokens of all templates, after `<bos>` and `<eos>`. */
const NAMES = [
  ...["<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>", "[INST]", "[/INST]"],
  ...["<|user|>", "<|assistant|>", "<|system|>"],
];

/** The byte tokenizer's files with these tokens, and merges, so that what stands together shows in the ids. */
export function chatTokenizerFiles(template: string): {
  tokenizerJson: Record<string, unknown>;
  tokenizerConfig: Record<string, unknown>;
} {
  const files = byteTokenizerFiles() as unknown as ReturnType<typeof chatTokenizerFiles>;
  const { tokenizerJson, tokenizerConfig } = files;
  const added = tokenizerJson.added_tokens as Record<string, unknown>[];
  const model = tokenizerJson.model as { vocab: Record<string, number> };
  const vocab = { ...model.vocab, he: 256, Ċh: 257, Ġh: 258, us: 259, er: 260, user: 261 };
  const more = NAMES.map((content, i) => ({ ...added[0], id: 264 + i, content }));
  const known = added.map((token, i) => ({ ...token, id: 262 + i }));
  return {
    tokenizerJson: {
      ...tokenizerJson,
      added_tokens: [...known, ...more],
      post_processor: null,
      model: { ...model, vocab, merges: ["h e", "Ċ h", "Ġ h", "u s", "e r", "us er"] },
    },
    tokenizerConfig: { ...tokenizerConfig, chat_template: template },
  };
}

export function chatTokenizer(template: string): Tokenizer {
  const { tokenizerJson, tokenizerConfig } = chatTokenizerFiles(template);
  return huggingFaceTokenizer(tokenizerJson, tokenizerConfig, "tokenizer.json", (names) =>
    chatTemplate({ template, file: "tokenizer_config.json" }, tokenizerConfig, names),
  );
}

/** Conversations without anything that looks like a token. */
export const CONVERSATIONS = [
  [{ role: "user", content: "hello there" }],
  [
    { role: "user", content: "  he said\n" },
    { role: "assistant", content: "a hen, e.g. ünd 木" },
    { role: "user", content: "\nher user" },
  ],
  [
    { role: "system", content: "be her user" },
    { role: "user", content: "<|not a token|> [ ] <" },
  ],
] as const;
