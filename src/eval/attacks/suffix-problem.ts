import { toSequence } from "../../flag/data.js";
import type { Example } from "../../formats/jsonl.js";
import type { Tokenizer } from "../../tokenizer.js";

/** Where a suffix stands, and what the model is to answer. */
export interface SuffixProblem {
  /** Ids before the suffix: BOS where there is one, and what the user says. */
  readonly before: readonly number[];
  /** Ids behind the suffix, as a chat's markup has them; none for a plain prompt. */
  readonly after: readonly number[];
  /** The first ids of the response that the attacker wants. */
  readonly target: readonly number[];
  /** A suffix to begin with. */
  readonly start: readonly number[];
  /**
   * Whether a suffix is what the tokenizer makes of its own text: an attacker sends text, so any other one exists in
   * the search alone.
   */
  survives(suffix: readonly number[]): boolean;
}

/** What is repeated to begin with: the paper's "! ! !" first. */
const UNITS = [" !", "!", " x", "x"];

/** Units that a tokenizer may make one token of. */
const MOST_JOINED = 4;

/**
 * The problem of an example: the suffix goes behind the prompt, or behind the last user's message.
 * @param length tokens of the suffix
 * @param target ids of the response's beginning
 * @returns undefined where no suffix of that length to begin with could be found: the tokenizer joins them all
 */
export function suffixProblem(
  tokenizer: Tokenizer,
  example: Example,
  length: number,
  target: readonly number[],
): SuffixProblem | undefined {
  const promptOf = (suffix: string) => {
    const limits = { maxResponse: 0, contextLength: Infinity, minOffset: 0 };
    return toSequence(tokenizer, withSuffix(example, suffix), limits).prompt;
  };
  const plain = promptOf("");
  for (const unit of UNITS) {
    for (let count = 1; count <= MOST_JOINED * length; count++) {
      const ids = promptOf(unit.repeat(count));
      if (ids.length !== plain.length + length) continue;
      const at = sharedStart(plain, ids);
      const [before, after, start] = [plain.slice(0, at), plain.slice(at), ids.slice(at, at + length)];
      if (!isSame(after, ids.slice(at + length))) continue;
      const head = tokenizer.decode(before);
      const survives = (suffix: readonly number[]) => {
        const text = tokenizer.decode([...before, ...suffix]);
        return (
          text.startsWith(head) && isSame(promptOf(text.slice(head.length)), [...before, ...suffix, ...after])
        );
      };
      if (survives(start)) return { before, after, target, start, survives };
    }
  }
  return undefined;
}

/** The example without its response, its prompt or last user's message longer by `suffix`. */
function withSuffix(example: Example, suffix: string): Example {
  if (!("messages" in example)) return { prompt: example.prompt + suffix };
  const messages =
    example.messages.at(-1)?.role === "assistant" ? example.messages.slice(0, -1) : example.messages;
  const last = messages.findLastIndex(({ role }) => role === "user");
  return {
    messages: messages.map((message, i) =>
      i === last ? { ...message, content: message.content + suffix } : message,
    ),
  };
}

function sharedStart(a: readonly number[], b: readonly number[]): number {
  const end = a.findIndex((id, i) => id !== b[i]);
  return end < 0 ? a.length : end;
}

function isSame(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
