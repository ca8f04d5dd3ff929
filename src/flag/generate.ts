import { decode, decodeBatch } from "../generate/decode.js";
import type { Monitor } from "../generate/monitor.js";
import { PrefixCache } from "../generate/prefix-cache.js";
import { GREEDY, type SamplingOptions } from "../generate/sample.js";
import type { DecodeStep } from "../generate/sequence.js";
import type { KVCacheOptions, KVType } from "../model/kv-cache.js";
import { Model } from "../model/model.js";
import { Random } from "../random.js";
import { applyChat, type Message, StreamDecoder } from "../tokenizer.js";
import type { Decision } from "./decision.js";
import { type FlagNotes, flagMonitor } from "./monitor.js";
import type { Policy } from "./policy.js";
import { FlaggedModel } from "./vocab.js";

/** What is gone on with: text, a conversation, or ids. */
export type Prompt = string | readonly number[] | readonly Message[];

/** How text is generated under the flag, whether from one prompt or from several. */
export interface CommonGenerateOptions extends Partial<SamplingOptions> {
  /** When the flag counts as raised; P(flag) >= 0.5 by default, or as calibrated. */
  readonly decision?: Decision;
  /** What happens then; the generation stops by default. */
  readonly policy?: Policy;
  /** Most new tokens; 256 by default. */
  readonly maxTokens?: number;
  /** Go on at an end-of-sequence token. */
  readonly ignoreEos?: boolean;
  /** What keys and values are kept as: f16 takes half the memory. f32 by default, or as the cache has it. */
  readonly kvType?: KVType;
  /** Aborts between two tokens, with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** How one prompt is gone on with. */
export interface GenerateOptions extends CommonGenerateOptions {
  readonly seed?: number;
  /** Of `createCache`: what the prompt shares with the last generation over it is not run again. */
  readonly cache?: PrefixCache;
}

/** How several prompts are gone on with. */
export interface GenerateBatchOptions extends CommonGenerateOptions {
  /** Of each sequence; by default 0, 1, … */
  readonly seeds?: readonly number[];
}

/** One step of a generation, or with `done` its end. */
export interface GenerateStep {
  /** The new token's id, or null where none was taken. */
  readonly token: number | null;
  /** The text that this step adds: empty while a character is incomplete. */
  readonly text: string;
  /** P(flag) from the raw logits at this position; null for a model without a flag. */
  readonly flagProbability: number | null;
  /** The category whose flag is the likeliest here, for a model with a flag for each. */
  readonly flagCategory?: string;
  /** Log-probability of the token under the raw logits, in nats. */
  readonly logprob: number | null;
  /** What the policy did here. */
  readonly event?: "flag" | "replace" | "rollback";
  /** With the last step: how it ended. */
  readonly done?: GenerateResult;
}

/** A generation that has ended. */
export interface GenerateResult {
  /** `length`, `context`, `eos`, `flag` (stopped by it) or `replaced`. */
  readonly reason: string;
  /** The new tokens. */
  readonly ids: readonly number[];
  /** The response: the new tokens' text, or what stands in its place. */
  readonly text: string;
  /** Whether the flag was raised anywhere. */
  readonly flagged: boolean;
}

/** One step of one of several generations. */
export type BatchGenerateStep = GenerateStep & {
  /** The prompt's number. */
  readonly index: number;
};

/**
 * Generates a continuation, a token at a time; the last step carries the result. P(flag) is read from the raw
 * logits, before temperature, top-k and top-p.
 * @param prompt text (a BOS is put first where the model has one), a conversation in the model's chat template, or
 * ids, taken as they are
 * @throws RangeError for an option out of its range, text for a model without a tokenizer, messages for one without
 * a chat template, or a cache of another model; FormatError where the template refuses the messages
 */
export async function* generate(
  target: FlaggedModel | Model,
  prompt: Prompt,
  options: GenerateOptions = {},
): AsyncGenerator<GenerateStep, void> {
  const continuation = new Continuation(target, prompt, options, options.seed ?? 0);
  const steps = decode(continuation.model, continuation.prompt, {
    ...commonOptions(target, options),
    ...{ random: continuation.random, monitor: continuation.monitor, cache: options.cache },
  });
  for await (const step of steps) {
    const told = continuation.tell(step);
    if (told) yield told;
  }
}

/**
 * The same from several prompts of any length side by side, which takes less time than one after the other: a pass
 * reads the weights once for all. Steps of different prompts come in turn; each prompt has a last step of its own.
 */
export async function* generateBatch(
  target: FlaggedModel | Model,
  prompts: readonly Prompt[],
  options: GenerateBatchOptions = {},
): AsyncGenerator<BatchGenerateStep, void> {
  const { seeds } = options;
  if (seeds && seeds.length !== prompts.length) {
    throw new RangeError(`seeds: ${seeds.length} for ${prompts.length} prompts`);
  }
  const continuations = prompts.map(
    (prompt, i) => new Continuation(target, prompt, options, seeds?.[i] ?? i),
  );
  const model = target instanceof Model ? target : target.model;
  for await (const { index, ...step } of decodeBatch(model, continuations, commonOptions(target, options))) {
    const told = continuations[index]?.tell(step);
    if (told) yield { index, ...told };
  }
}

/** A cache for generations with this model, and its flag, that follow on one another; see `PrefixCache`. */
export function createCache(target: FlaggedModel | Model, options: KVCacheOptions = {}): PrefixCache {
  if (target instanceof Model) return new PrefixCache(target, undefined, options);
  return new PrefixCache(target.model, target.overlay, options);
}

function commonOptions(target: FlaggedModel | Model, options: CommonGenerateOptions) {
  const model = target instanceof Model ? target : target.model;
  return {
    sampling: { ...GREEDY, ...definedOnly(options) },
    maxTokens: options.maxTokens ?? 256,
    eosIds: options.ignoreEos ? [] : model.config.eosIds,
    overlay: target instanceof Model ? undefined : target.overlay,
    kvType: options.kvType,
    signal: options.signal,
  };
}

/** What a prompt is gone on with: the source of a sequence, whose steps it puts into words. */
class Continuation {
  readonly model: Model;
  readonly prompt: readonly number[];
  readonly random: Random;
  readonly monitor: Monitor | undefined;
  readonly #flagged: FlaggedModel | undefined;
  readonly #decoder: StreamDecoder | null;
  #text = "";
  #wasFlagged = false;

  constructor(
    target: FlaggedModel | Model,
    prompt: Prompt,
    { decision, policy = { kind: "stop" } }: CommonGenerateOptions,
    seed: number,
  ) {
    const flagged = target instanceof FlaggedModel ? target : undefined;
    this.#flagged = flagged;
    this.model = target instanceof Model ? target : target.model;
    this.prompt = isIds(prompt) ? prompt : encodePrompt(this.model, prompt);
    this.random = new Random(seed);
    this.monitor = flagged && flagMonitor(flagged.flagIds, decision ?? flagged.decision, policy);
    const { tokenizer } = this.model;
    this.#decoder = tokenizer && new StreamDecoder(tokenizer, this.prompt.at(-1) ?? null);
  }

  /** What a step of the sequence means; nothing of a rollback, whose place the next token takes. */
  tell(step: DecodeStep): GenerateStep | undefined {
    const raised = step.notes.raised === true;
    this.#wasFlagged ||= raised;
    const reading = this.#flagged ? readingOf(this.#flagged, step.notes) : { flagProbability: null };
    if (step.kind === "token") {
      const text = this.#textOf(step.id);
      this.#text += text;
      const event = raised ? { event: "flag" as const } : {};
      return { token: step.id, text, ...reading, logprob: step.logprob, ...event };
    }
    if (step.kind !== "end") return undefined;
    const rest = this.#decoder?.flush() ?? "";
    const done = {
      reason: step.reason,
      ids: step.ids,
      text: step.text ?? this.#text + rest,
      flagged: this.#wasFlagged,
    };
    const event = endEvent(step, raised);
    return { token: null, text: rest, ...reading, logprob: null, ...(event ? { event } : {}), done };
  }

  /** Rows behind the tokenizer's last token, which padded vocabularies have, stand for nothing; so does a flag. */
  #textOf(id: number): string {
    const known = this.model.tokenizer?.vocabSize ?? 0;
    return this.#decoder && id < known && !this.#flagged?.isFlag(id) ? this.#decoder.push(id) : "";
  }
}

/** What the monitor has noted, as a step says it. */
function readingOf(
  flagged: FlaggedModel,
  notes: Partial<FlagNotes>,
): Pick<GenerateStep, "flagProbability" | "flagCategory"> {
  const { flagProbability = null, flagId } = notes;
  const category = flagId === undefined ? null : flagged.categoryOf(flagId);
  return { flagProbability, ...(category === null ? {} : { flagCategory: category }) };
}

function endEvent(step: Extract<DecodeStep, { kind: "end" }>, raised: boolean): GenerateStep["event"] {
  if (step.text !== undefined) return "replace";
  return raised ? "flag" : undefined;
}

function isIds(prompt: Prompt): prompt is readonly number[] {
  return typeof prompt !== "string" && prompt.every((item) => typeof item === "number");
}

/**
 * Text as ids, a BOS first where the tokenizer puts one, or messages in the model's chat template. Names of special
 * tokens in them stay text.
 */
export function encodePrompt(model: Model, prompt: string | readonly Message[]): number[] {
  const { tokenizer } = model;
  if (!tokenizer) throw new RangeError("prompt: the model has no tokenizer; give ids");
  if (typeof prompt !== "string") return applyChat(tokenizer, prompt);
  return [...(tokenizer.bosId === null ? [] : [tokenizer.bosId]), ...tokenizer.encode(prompt)];
}

function definedOnly({ temperature, topK, topP }: Partial<SamplingOptions>): Partial<SamplingOptions> {
  return {
    ...(temperature === undefined ? {} : { temperature }),
    ...(topK === undefined ? {} : { topK }),
    ...(topP === undefined ? {} : { topP }),
  };
}
