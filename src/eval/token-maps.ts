import { StreamDecoder, type Tokenizer } from "../tokenizer.js";
import type { Conversation, ConversationSet } from "./conversations.js";
import type { TokenMap } from "./evaluation.js";
import type { FlagReading } from "./red-flag.js";

/** Where in the order of their scores the shown conversations stand: not the best ones only. */
const HARMFUL_SHARES = [0.9, 0.5, 0.1];
const BENIGN_SHARES = [0.5];
const FALSE_FLAGS = 2;

/** A few conversations token by token: harmful ones, a benign one, and the benign ones that were flagged. */
export function tokenMaps(
  tokenizer: Tokenizer,
  conversations: ConversationSet,
  readings: { readonly harmful: readonly FlagReading[]; readonly benign: readonly FlagReading[] },
): TokenMap[] {
  const harmful = byScore(readings.harmful);
  const benign = byScore(readings.benign);
  const quiet = benign.filter((i) => !readings.benign[i]?.flagged);
  const falseFlags = benign.filter((i) => readings.benign[i]?.flagged).slice(-FALSE_FLAGS);
  const map = (kind: "harmful" | "benign") => (i: number) =>
    tokenMap(
      tokenizer,
      conversations[kind][i] as Conversation,
      readings[kind][i] as FlagReading,
      kind === "harmful",
    );
  return [
    ...atShares(harmful, HARMFUL_SHARES).map(map("harmful")),
    ...atShares(quiet, BENIGN_SHARES).map(map("benign")),
    ...falseFlags.map(map("benign")),
  ];
}

/** Indices by rising score. */
function byScore(readings: readonly FlagReading[]): number[] {
  return readings
    .map(({ score }, i) => ({ score, i }))
    .sort((a, b) => a.score - b.score)
    .map(({ i }) => i);
}

/** What stands at shares of a list, nothing twice. */
function atShares<T>(list: readonly T[], shares: readonly number[]): T[] {
  const places = shares.map((share) => Math.round(share * (list.length - 1)));
  return list.length === 0 ? [] : [...new Set(places)].map((place) => list[place] as T);
}

function tokenMap(
  tokenizer: Tokenizer,
  { prompt, sequence, onset }: Conversation,
  { probabilities, first }: FlagReading,
  harmful: boolean,
): TokenMap {
  const decoder = new StreamDecoder(tokenizer, sequence.prompt.at(-1) ?? null);
  const tokens = sequence.response.map((id, i) => ({
    text: id < tokenizer.vocabSize ? decoder.push(id) : "",
    probability: probabilities[i] as number,
  }));
  return { prompt, harmful, tokens, last: probabilities[tokens.length] as number, onset, first };
}
