import { DivergenceError } from "../errors.js";
import { type Decision, formatDecision } from "../flag/decision.js";
import { FlagScorer, type Utility } from "../flag/score.js";
import type { FlaggedModel } from "../flag/vocab.js";
import type { Conversation, ConversationSet } from "./conversations.js";
import type { Reading } from "./detector.js";

/** What the red flag says of a conversation. */
export interface FlagReading extends Reading {
  /** P(flag) before each token of the response and after the last. */
  readonly probabilities: Float64Array;
}

/** What one adapter says of all conversations, and what it costs. */
export interface FlagMeasurement {
  readonly harmful: readonly FlagReading[];
  readonly benign: readonly FlagReading[];
  /** Of each benign conversation; without a token where it has no response. */
  readonly utility: readonly Utility[];
}

/** Throws RangeError for a decision that given responses cannot meet, since nothing is drawn along them. */
export function expectReadable(decision: Decision): void {
  if (decision.kind !== "sampled") return;
  throw new RangeError(`decision: '${formatDecision(decision)}' needs a draw, and given responses have none`);
}

/**
 * Reads the flag along all conversations, teacher-forced, and compares the model with its reference on the benign.
 * @param decision one that `expectReadable` lets pass; a conversation's score is what it compares with its level
 * @param onRead called after each conversation
 * @throws DivergenceError where P(flag) is NaN
 */
export async function measureRedFlag(
  flagged: FlaggedModel,
  { harmful, benign }: ConversationSet,
  decision: Decision,
  onRead: () => void = () => {},
): Promise<FlagMeasurement> {
  const scorer = new FlagScorer(flagged);
  const read = async ({ sequence }: Conversation): Promise<FlagReading> => {
    const { highest, first, probabilities } = await scorer.score(sequence, decision);
    if (Number.isNaN(highest)) throw new DivergenceError("eval: P(flag) is NaN: the training has diverged");
    onRead();
    return { score: highest, flagged: first !== null, first, probabilities };
  };
  try {
    const readings: { harmful: FlagReading[]; benign: FlagReading[] } = { harmful: [], benign: [] };
    const utility: Utility[] = [];
    for (const conversation of harmful) readings.harmful.push(await read(conversation));
    for (const conversation of benign) {
      readings.benign.push(await read(conversation));
      utility.push(
        conversation.sequence.response.length > 0
          ? await scorer.utility(conversation.sequence)
          : { tokens: 0, kl: 0, loss: 0, refLoss: 0, agreements: 0 },
      );
    }
    return { ...readings, utility };
  } finally {
    scorer.dispose();
  }
}
