import { type DecodeStep, decode } from "../generate/decode.js";
import { GREEDY, type SamplingOptions } from "../generate/sample.js";
import { Model } from "../model/model.js";
import { Random } from "../random.js";
import { applyChat, type Message, StreamDecoder } from "../tokenizer.js";
import type { Decision } from "./decision.js";
import { type FlagNotes, flagMonitor } from "./monitor.js";
import type { Policy } from "./policy.js";
import { FlaggedModel } from "./vocab.js";

/** How text is generated under the flag. */
export interface GenerateOptions extends Partial<SamplingOptions> {
  /** When the flag counts as raised; P(flag) >= 0.5 by default, or as calibrated. */
  readonly decision?: Decision;
  /** What happens then; the generation stops by default. */
  readonly policy?: Policy;
  readonly seed?: number;
  /** Most new tokens; 256 by default. */
  readonly maxTokens?: number;
  /** Go on at an end-of-sequence token. */
  readonly ignoreEos?: boolean;
  /** Aborts between two tokens, with the signal's reason. */
  readonly signal?: AbortSignal;
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

/**
 * Generates a continuation, a token at a time; the last step carries the result. P(flag) is read from the raw
 * logits, before temperature, top-k and top-p.
 * @param prompt text (a BOS is put first where the model has one), a conversation in the model's chat template, or
 * ids, taken as they are
 * @throws RangeError for an option out of its range, text for a model without a tokenizer, or messages for one without
 * a chat template; FormatError where the template refuses the messages
 */
export async function* generate(
  target: FlaggedModel | Model,
  prompt: string | readonly number[] | readonly Message[],
  options: GenerateOptions = {},
): AsyncGenerator<GenerateStep, void> {
  const flagged = target instanceof FlaggedModel ? target : undefined;
  const model = target instanceof Model ? target : target.model;
  const { tokenizer } = model;
  const ids = isIds(prompt) ? prompt : encodePrompt(model, prompt);
  const policy = options.policy ?? { kind: "stop" };
  const steps = decode(model, ids, {
    sampling: { ...GREEDY, ...definedOnly(options) },
    random: new Random(options.seed ?? 0),
    maxTokens: options.maxTokens ?? 256,
    eosIds: options.ignoreEos ? [] : model.config.eosIds,
    overlay: flagged?.overlay,
    monitor: flagged && flagMonitor(flagged.flagIds, options.decision ?? flagged.decision, policy),
    signal: options.signal,
  });

  const decoder = tokenizer && new StreamDecoder(tokenizer, ids.at(-1) ?? null);
  // Rows behind the tokenizer's last token, which padded vocabularies have, stand for nothing; so does a flag.
  const textOf = (id: number) =>
    decoder && id < tokenizer.vocabSize && !flagged?.isFlag(id) ? decoder.push(id) : "";
  let whole = "";
  let wasFlagged = false;
  for await (const step of steps) {
    const raised = step.notes.raised === true;
    wasFlagged ||= raised;
    const reading = flagged ? readingOf(flagged, step.notes) : { flagProbability: null };
    if (step.kind === "token") {
      const added = textOf(step.id);
      whole += added;
      yield {
        token: step.id,
        text: added,
        ...reading,
        logprob: step.logprob,
        ...(raised ? { event: "flag" as const } : {}),
      };
    } else if (step.kind === "end") {
      const rest = decoder?.flush() ?? "";
      const result = {
        reason: step.reason,
        ids: step.ids,
        text: step.text ?? whole + rest,
        flagged: wasFlagged,
      };
      const event = endEvent(step, raised);
      yield {
        token: null,
        text: rest,
        ...reading,
        logprob: null,
        ...(event ? { event } : {}),
        done: result,
      };
    }
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

function isIds(prompt: string | readonly number[] | readonly Message[]): prompt is readonly number[] {
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
