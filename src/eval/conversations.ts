import { promptFits, respond, sequenceToRead } from "../flag/conversation.js";
import { type FlagSequence, promptAndResponse } from "../flag/data.js";
import type { Decision } from "../flag/decision.js";
import type { FlaggedModel } from "../flag/vocab.js";
import type { Example } from "../formats/jsonl.js";
import type { Model } from "../model/model.js";
import type { DataFacts } from "./evaluation.js";

/** A file of examples of one class. */
export interface ExampleFile {
  readonly path: string;
  readonly examples: readonly Example[];
}

/** How examples become conversations. */
export interface ConversationOptions {
  /** Most tokens of a response, given or generated. */
  readonly maxTokens: number;
  /** The model answers every prompt itself, also those that bring a response. */
  readonly generate: boolean;
}

/** An example that can be read, before the model has written what is missing. */
export interface Question {
  readonly example: Example;
  /** As the model sees it; without a response where the model is to write one. */
  readonly sequence: FlagSequence;
}

/** A prompt and a response that detectors read. */
export interface Conversation extends Question {
  /** Tokens of the response by which harm has become evident, where the example says so of its own response. */
  readonly onset: number | null;
  /** The text of the prompt, and of the response as far as it was cut. */
  readonly prompt: string;
  readonly response: string;
}

/** What of a file can be read. */
export interface Questions {
  readonly questions: readonly Question[];
  readonly facts: DataFacts;
}

/** Conversations of both classes. */
export interface ConversationSet {
  readonly harmful: readonly Conversation[];
  readonly benign: readonly Conversation[];
}

/**
 * The examples of a file that can be read. Left out are those whose prompt is empty or leaves the response no place
 * in the model's context, and those whose harm becomes evident only past the cut response, where nobody sees it.
 */
export function questionsOf(
  model: Model,
  { path, examples }: ExampleFile,
  options: ConversationOptions,
): Questions {
  const questions = examples
    .map((example) => {
      const sequence = sequenceToRead(model, example, options.maxTokens);
      return { example, sequence: options.generate ? { ...sequence, response: [], onset: 0 } : sequence };
    })
    .filter(({ example, sequence: { prompt, response, onset } }) => {
      if (!promptFits(model, prompt)) return false;
      const isAnswered = !options.generate && promptAndResponse(example).response !== "";
      return !isAnswered || (response.length > 0 && onset <= response.length);
    });
  const generated = questions.filter(isOpen).length;
  const facts = {
    path,
    examples: examples.length,
    generated,
    left_out: examples.length - questions.length,
  };
  return { questions, facts };
}

/** Whether the model is to write the response. */
export function isOpen({ sequence }: Question): boolean {
  return sequence.response.length === 0;
}

/** The conversation of a question: where it has no response, with what the flagged model answers greedily. */
export async function conversationOf(
  flagged: FlaggedModel,
  question: Question,
  decision: Decision,
  maxTokens: number,
): Promise<Conversation> {
  if (!isOpen(question)) return withText(flagged.model, question, question.sequence.onset);
  const { example, sequence } = question;
  const response = await respond(flagged, sequence.prompt, { decision, maxTokens });
  return withText(flagged.model, { example, sequence: { ...sequence, response } }, null);
}

/** The conversations of a file that bring a response: what baselines are trained on. */
export function givenConversations(model: Model, file: ExampleFile, maxTokens: number): Conversation[] {
  return questionsOf(model, file, { maxTokens, generate: false })
    .questions.filter((question) => !isOpen(question))
    .map((question) => withText(model, question, question.sequence.onset));
}

function withText({ tokenizer }: Model, { example, sequence }: Question, onset: number | null): Conversation {
  if (!tokenizer) throw new RangeError("the model has no tokenizer to read examples with");
  const known = sequence.response.filter((id) => id < tokenizer.vocabSize);
  return {
    example,
    sequence,
    onset: example.onset === undefined ? null : onset,
    prompt: promptAndResponse(example).prompt,
    response: tokenizer.decode(known).trimStart(),
  };
}
