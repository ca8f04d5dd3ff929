import type { Example } from "../formats/jsonl.js";
import type { Random, RandomState } from "../random.js";
import { applyChat, type Message, type Tokenizer } from "../tokenizer.js";
import type { BatchSource } from "../train/batches.js";
import { Deck, type DeckState } from "./deck.js";
import type { FlagBatch } from "./loss.js";
import { type Placement, placementLaw } from "./placement.js";

/** Ids of a conversation, and where in the response its harm has become evident. */
export interface FlagSequence {
  /** Ids before the response, a BOS first where the tokenizer has one. */
  readonly prompt: readonly number[];
  /** Ids of the response, cut to the limit; may be empty. */
  readonly response: readonly number[];
  /** Tokens of the response that cover the example's `onset`, or the least offset asked for. */
  readonly onset: number;
  /** The flag that is its target, where there are several. */
  readonly flagId?: number;
  /** Where its example stands in the data, counted from 0: for messages. */
  readonly index?: number;
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

/** The two sides of an example as plain text: its fields, or the last assistant's message and what stands before it. */
export function promptAndResponse(example: Example): { prompt: string; response: string } {
  if (!("messages" in example)) return { prompt: example.prompt, response: example.response ?? "" };
  const { messages } = example;
  const answered = messages.at(-1)?.role === "assistant";
  const asked = answered ? messages.slice(0, -1) : messages;
  const prompt = asked.map(({ role, content }) => `${role}: ${content}\n`).join("");
  return { prompt: `${prompt}assistant:`, response: answered ? (messages.at(-1)?.content ?? "") : "" };
}

/** The text of an example: its prompt and its response, with a space between them where neither has white space. */
export function conversationText(example: Example): string {
  const { prompt, response } = promptAndResponse(example);
  const glue = response === "" || /\s$/.test(prompt) || /^\s/.test(response) ? "" : " ";
  return prompt + glue + response;
}

/** The date of every conversation whose template tells one: ids must not change from day to day. */
const TOLD_DATE = new Date(2024, 6, 26);

/** What stands before a response, the same with the response behind it, and how much of the response that is. */
interface Layout {
  readonly prompt: readonly number[];
  readonly whole: readonly number[];
  readonly response: string;
}

/** Messages in the model's own layout. The markup that closes the response is no part of it. */
function chatLayout(tokenizer: Tokenizer, messages: readonly Message[]): Layout {
  const now = TOLD_DATE;
  const answer = messages.at(-1);
  if (answer?.role !== "assistant") {
    const prompt = applyChat(tokenizer, messages, { now });
    return { prompt, whole: prompt, response: "" };
  }
  const prompt = applyChat(tokenizer, messages.slice(0, -1), { now });
  if (answer.content.trim() === "") return { prompt, whole: prompt, response: "" };
  const whole = applyChat(tokenizer, messages, { open: true, now });
  return { prompt, whole, response: answer.content.trimEnd() };
}

/** Plain text, a BOS first where the tokenizer has one. */
function textLayout(tokenizer: Tokenizer, example: Example): Layout {
  const { prompt, response } = promptAndResponse(example);
  const bos = tokenizer.bosId === null ? [] : [tokenizer.bosId];
  const ids = (text: string) => [...bos, ...tokenizer.encode(text)];
  const alone = ids(prompt);
  return { prompt: alone, whole: response === "" ? alone : ids(conversationText(example)), response };
}

/**
 * An example as ids: messages in the model's chat template where it has one, else as plain text. Prompt and response
 * are encoded as one text, so that the tokens at their border are those that the model would see; the prompt is what
 * that text shares with the prompt alone.
 */
export function toSequence(tokenizer: Tokenizer, example: Example, options: SequenceOptions): FlagSequence {
  const isChat = "messages" in example && example.messages !== undefined && tokenizer.chat !== undefined;
  const { prompt, whole, response } = isChat
    ? chatLayout(tokenizer, example.messages)
    : textLayout(tokenizer, example);
  let shared = 0;
  while (shared < prompt.length && prompt[shared] === whole[shared]) shared++;

  const answer = whole.slice(shared);
  const onset =
    example.onset === undefined
      ? options.minOffset
      : coveringTokens(tokenizer, answer, response, example.onset);
  // One place is kept for the flag.
  const room = Math.max(0, options.contextLength - 1 - shared);
  return {
    prompt: whole.slice(0, shared),
    response: answer.slice(0, Math.min(options.maxResponse, room)),
    onset,
  };
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

/** How examples become sequences to train on. */
export interface TrainingSequenceOptions extends SequenceOptions {
  /** Where the flag will be put; `uniform` by default. Under `fixed` any onset will do. */
  readonly placement?: Placement;
  /** The flag for a category of harm, undefined where it has none; by default no sequence names its flag. */
  readonly flagFor?: (category: string | undefined) => number | undefined;
}

/** Sequences that training can use, and how many examples it can't. */
export interface UsableSequences {
  readonly sequences: FlagSequence[];
  /** Left out: no response, no prompt, or an onset past the cut. */
  readonly leftOut: number;
}

/**
 * Ids of examples for training, all of them.
 * @throws RangeError naming the harmful example whose category has no flag
 */
export function trainingSequences(
  tokenizer: Tokenizer,
  examples: readonly Example[],
  kind: "harmful" | "benign",
  options: TrainingSequenceOptions,
): FlagSequence[] {
  return examples.map((example, index) => ({
    ...toSequence(tokenizer, example, options),
    index,
    ...(kind === "harmful" && options.flagFor ? { flagId: flagOf(example, index, options.flagFor) } : {}),
  }));
}

/**
 * Those that training can use: left out are sequences without a prompt or a response, and of the harmful ones those
 * whose onset lies past the cut response.
 */
export function usable(
  sequences: readonly FlagSequence[],
  kind: "harmful" | "benign",
  { placement }: Pick<TrainingSequenceOptions, "placement">,
): UsableSequences {
  const isAnywhere = kind === "benign" || placement === "fixed";
  const kept = sequences.filter(
    ({ prompt, response, onset }) =>
      prompt.length > 0 && response.length > 0 && (isAnywhere || onset <= response.length - 1),
  );
  return { sequences: kept, leftOut: sequences.length - kept.length };
}

/** `usable` of `trainingSequences`. */
export function usableSequences(
  tokenizer: Tokenizer,
  examples: readonly Example[],
  kind: "harmful" | "benign",
  options: TrainingSequenceOptions,
): UsableSequences {
  return usable(trainingSequences(tokenizer, examples, kind, options), kind, options);
}

function flagOf(
  { category }: Example,
  index: number,
  flagFor: (category: string | undefined) => number | undefined,
): number {
  const flagId = flagFor(category);
  if (flagId !== undefined) return flagId;
  const problem = category === undefined ? "has no category" : `no flag is for its category '${category}'`;
  throw new RangeError(
    `harmful example ${index}: ${problem}; name it in categories, or 'other' for the rest`,
  );
}

/** Where `flagBatches` stands. */
interface FlagBatchesState {
  readonly random: RandomState;
  readonly harmful: DeckState;
  readonly benign: DeckState;
}

/** What a batch holds. */
export interface BatchOptions {
  /** Harmful, and benign, conversations. */
  readonly harmful: number;
  readonly benign: number;
  /** Where the flag is put; `uniform` by default. */
  readonly placement?: Placement;
  /** Batches that are cut together from conversations sorted by length; 1, the default, leaves them as drawn. */
  readonly bucket?: number;
  /** Whether batches bring a seed for the adapter's dropout. */
  readonly dropout?: boolean;
  /** The chance of a harmful conversation to be marked as attacked; 0 by default. */
  readonly attacked?: number;
}

/**
 * Makes batches: each example once before any comes again, the benign ones of a batch as near in length to its
 * harmful ones as the bucket at hand has them.
 */
export function flagBatches(
  harmful: readonly FlagSequence[],
  benign: readonly FlagSequence[],
  { placement = "uniform", bucket = 1, dropout = false, attacked = 0, ...sizes }: BatchOptions,
  random: Random,
): BatchSource<FlagBatch> {
  const placeFlag = placementLaw(placement);
  const harmfulDeck = new Deck(harmful, { size: sizes.harmful, bucket, lengthOf }, random);
  const benignDeck = new Deck(benign, { size: sizes.benign, bucket, lengthOf }, random);
  return {
    next() {
      const flagged = harmfulDeck.deal();
      const longest = flagged.at(-1);
      return {
        harmful: flagged.map((sequence) => ({
          ...sequence,
          ...placeFlag(sequence.onset, sequence.response.length, random),
          // Nothing is drawn where nothing is attacked: the other draws stay what they were.
          ...(attacked > 0 && { isAttacked: random.uniform() < attacked }),
        })),
        benign: benignDeck.deal(longest && lengthOf(longest)),
        ...(dropout ? { dropoutSeed: random.uint32() } : {}),
      };
    },
    get state(): FlagBatchesState {
      return { random: random.state, harmful: harmfulDeck.state, benign: benignDeck.state };
    },
    set state(state: unknown) {
      const stand = state as FlagBatchesState;
      random.state = stand.random;
      harmfulDeck.state = stand.harmful;
      benignDeck.state = stand.benign;
    },
    describe: ({ harmful, benign }) =>
      [named("harmful", harmful), named("benign", benign), "counted from 0"]
        .filter((text) => text !== "")
        .join(", "),
  };
}

/** The examples of one kind in a batch, as in `harmful examples 3, 17`. */
function named(kind: string, sequences: readonly { readonly index?: number }[]): string {
  if (sequences.length === 0) return "";
  const places = sequences.map(({ index }) => index ?? "?").join(", ");
  return `${kind} ${sequences.length === 1 ? "example" : "examples"} ${places}`;
}

function lengthOf({ prompt, response }: FlagSequence): number {
  return prompt.length + response.length;
}
