import type { Example } from "../formats/jsonl.js";
import type { Random } from "../random.js";
import type { Tokenizer } from "../tokenizer.js";
import type { BenignSequence, FlagBatch, HarmfulSequence } from "./loss.js";

/** Ids of a conversation, and where in the response its harm has become evident. */
export interface FlagSequence {
  /** Ids before the response, a BOS first where the tokenizer has one. */
  readonly prompt: readonly number[];
  /** Ids of the response, cut to the limit; may be empty. */
  readonly response: readonly number[];
  /** Tokens of the response that cover the example's `onset`, or the least offset asked for. */
  readonly onset: number;
}

/** How examples become ids. */
export interface SequenceOptions {
  /** Most tokens of a response; longer ones are cut. */
  readonly maxResponse: number;
  /** Most tokens of prompt, flag and response: the model's context. */
  readonly contextLength: number;
  /** Least offset of the flag where an example has no `onset`. */
  readonly minOffset: number;
}

/** The two sides of an example: its fields, or the last assistant's message and what stands before it. */
export function promptAndResponse(example: Example): { prompt: string; response: string } {
  if (!("messages" in example)) return { prompt: example.prompt, response: example.response ?? "" };
  const { messages } = example;
  const answered = messages.at(-1)?.role === "assistant";
  const asked = answered ? messages.slice(0, -1) : messages;
  const prompt = asked.map(({ role, content }) => `${role}: ${content}\n`).join("");
  return { prompt: `${prompt}assistant:`, response: answered ? (messages.at(-1)?.content ?? "") : "" };
}

/**
 * An example as ids. Prompt and response are encoded as one text, so that the tokens at their border are those
 * that the model would see; the prompt is what that text shares with the prompt alone.
 */
export function toSequence(tokenizer: Tokenizer, example: Example, options: SequenceOptions): FlagSequence {
  const { prompt, response } = promptAndResponse(example);
  const glue = response === "" || /\s$/.test(prompt) || /^\s/.test(response) ? "" : " ";
  const alone = tokenizer.encode(prompt);
  const whole = response === "" ? alone : tokenizer.encode(prompt + glue + response);
  let shared = 0;
  while (shared < alone.length && alone[shared] === whole[shared]) shared++;

  const bos = tokenizer.bosId === null ? [] : [tokenizer.bosId];
  const promptIds = [...bos, ...whole.slice(0, shared)];
  const answer = whole.slice(shared);
  const onset =
    example.onset === undefined
      ? options.minOffset
      : coveringTokens(tokenizer, answer, response, example.onset);
  // One place is kept for the flag.
  const room = Math.max(0, options.contextLength - 1 - promptIds.length);
  return { prompt: promptIds, response: answer.slice(0, Math.min(options.maxResponse, room)), onset };
}

/**
 * How many of `ids` cover the first `characters` of the text that they end with, counted from its end, where
 * no glue or prefix of the tokenizer can shift it.
 */
function coveringTokens(
  tokenizer: Tokenizer,
  ids: readonly number[],
  text: string,
  characters: number,
): number {
  // Nothing needs no token, not even that of the glue.
  if (characters === 0) return 0;
  const rest = new TextEncoder().encode(text.slice(characters)).length;
  let left = ids.reduce((sum, id) => sum + tokenizer.bytes(id).length, 0);
  let count = 0;
  while (count < ids.length && left > rest) left -= tokenizer.bytes(ids[count++] as number).length;
  return count;
}

/** Sequences that training can use, and how many examples it can't. */
export interface UsableSequences {
  readonly sequences: FlagSequence[];
  /** Left out: no response, no prompt, or an onset past the cut. */
  readonly leftOut: number;
}

/**
 * Ids of examples for training. Left out are those without a prompt or a response, and of the harmful ones those
 * whose onset lies past the cut response.
 */
export function usableSequences(
  tokenizer: Tokenizer,
  examples: readonly Example[],
  kind: "harmful" | "benign",
  options: SequenceOptions,
): UsableSequences {
  const sequences = examples
    .map((example) => toSequence(tokenizer, example, options))
    .filter(({ prompt, response, onset }) => {
      const placeable = kind === "benign" || onset <= response.length - 1;
      return prompt.length > 0 && response.length > 0 && placeable;
    });
  return { sequences, leftOut: examples.length - sequences.length };
}

/** Deals items in random order, again and again. */
class Deck<T> {
  #left: T[] = [];

  constructor(
    readonly items: readonly T[],
    readonly random: Random,
  ) {}

  draw(count: number): T[] {
    return Array.from({ length: this.items.length > 0 ? count : 0 }, () => {
      if (this.#left.length === 0) this.#left = this.random.shuffle(this.items);
      return this.#left.pop() as T;
    });
  }
}

/** What a batch holds. */
export interface BatchOptions {
  /** Harmful, and benign, conversations. */
  readonly harmful: number;
  readonly benign: number;
  /** The chance of a harmful conversation to be marked as attacked; 0 by default. */
  readonly attacked?: number;
}

/** Makes batches: each example once before any comes again; the flag's place uniform on [onset, n - 1]. */
export function flagBatches(
  harmful: readonly FlagSequence[],
  benign: readonly FlagSequence[],
  { attacked = 0, ...sizes }: BatchOptions,
  random: Random,
): () => FlagBatch {
  const harmfulDeck = new Deck(harmful, random);
  const benignDeck = new Deck(benign, random);
  return () => ({
    harmful: harmfulDeck.draw(sizes.harmful).map((sequence) => ({
      ...withFlag(sequence, random),
      // Nothing is drawn where nothing is attacked: the other draws stay what they were.
      ...(attacked > 0 && { isAttacked: random.uniform() < attacked }),
    })),
    benign: benignDeck.draw(sizes.benign) as BenignSequence[],
  });
}

function withFlag(sequence: FlagSequence, random: Random): HarmfulSequence {
  const { onset, response } = sequence;
  return { ...sequence, insertAt: onset + random.below(response.length - onset) };
}
