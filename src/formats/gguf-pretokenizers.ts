/** How a byte-level BPE cuts a text into words, which no merge crosses. */
export interface Pretokenizer {
  /** Regular expressions that are applied one after the other: matches, and what lies between them, are parts. */
  readonly patterns: readonly string[];
  /** Whether a word that is a token needs no merges. */
  readonly ignoreMerges: boolean;
  /** Whether BOS goes before a text where the file does not say. */
  readonly addBos: boolean;
}

/** GPT-2's own (Radford et al. 2019, `encoder.py`). */
export const GPT2_PATTERN =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const CONTRACTIONS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";

/** That of tiktoken's cl100k_base, with at most so many digits in a word. */
function cl100k(digits: string): string {
  return (
    `(?:${CONTRACTIONS})|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}` +
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
  );
}

/** That of tiktoken's o200k_base: words also end where capitals begin. */
function o200k(digits: string, contractions: string): string {
  const upper = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
  const lower = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
  const start = "[^\\r\\n\\p{L}\\p{N}]?";
  return (
    `${start}[${upper}]*[${lower}]+${contractions}|${start}[${upper}]+[${lower}]*${contractions}|${digits}` +
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
  );
}

function pretokenizer(patterns: readonly string[], rest: Partial<Pretokenizer> = {}): Pretokenizer {
  return { patterns, ignoreMerges: false, addBos: false, ...rest };
}

/**
 * That of a name in `tokenizer.ggml.pre`, as llama.cpp has it (`llama-vocab.cpp`), undefined where we have none. A
 * file without the field is one of before there was it, which llama.cpp takes for `default`.
 */
export function pretokenizerOf(pre: string): Pretokenizer | undefined {
  switch (pre) {
    case "default":
      return pretokenizer(["[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2_PATTERN, "\\p{N}+", "[0-9][0-9][0-9]"]);
    case "gpt-2":
    case "phi-2":
    case "mpt":
    case "olmo":
      return pretokenizer([GPT2_PATTERN]);
    case "smollm":
    case "starcoder":
    case "refact":
    case "codeshell":
      return pretokenizer(["\\p{N}", GPT2_PATTERN]);
    case "llama3":
    case "llama-v3":
    case "llama-bpe":
    case "falcon3":
      return pretokenizer([cl100k("\\p{N}{1,3}")], { ignoreMerges: true, addBos: true });
    case "dbrx":
    case "smaug-bpe":
      return pretokenizer([cl100k("\\p{N}{1,3}")]);
    case "qwen2":
    case "deepseek-r1-qwen":
    case "stablelm2":
      return pretokenizer([cl100k("\\p{N}")]);
    case "tekken":
      return pretokenizer([o200k("\\p{N}", "")], { ignoreMerges: true, addBos: true });
    case "gpt-4o":
      return pretokenizer([o200k("\\p{N}{1,3}", `(?:${CONTRACTIONS})?`)]);
    default:
      return undefined;
  }
}

/** The names that are looked through for that of given patterns; of several for the same the commonest. */
const NAMES = ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o", "default"];

/** The name for patterns as `tokenizer.json` files have them, undefined where we know none. */
export function pretokenizerNamed(patterns: readonly string[], ignoreMerges: boolean): string | undefined {
  // The same without a modifier, which llama.cpp's regular expressions have not.
  const plain = patterns.map((pattern) =>
    pattern.replaceAll("(?i:'s|'t|'re|'ve|'m|'ll|'d)", `(?:${CONTRACTIONS})`),
  );
  return NAMES.find((name) => {
    const known = pretokenizerOf(name);
    return known?.ignoreMerges === ignoreMerges && known.patterns.join("\n") === plain.join("\n");
  });
}
