import { FormatError } from "../errors.js";
import { type Decision, formatDecision } from "../flag/decision.js";
import type { Utility } from "../flag/score.js";
import type { FlaggedModel } from "../flag/vocab.js";
import type { Model } from "../model/model.js";
import { alongResults } from "./along.js";
import type { BootstrapOptions } from "./bootstrap.js";
import {
  type Conversation,
  type ConversationOptions,
  type ConversationSet,
  conversationOf,
  type ExampleFile,
  isOpen,
  type Question,
  questionsOf,
} from "./conversations.js";
import { type Detector, type DetectorReadings, detectorResult, type Readings } from "./detector.js";
import { eitherOf } from "./either.js";
import type { Evaluation } from "./evaluation.js";
import { readFixedPos } from "./fixed-pos.js";
import { groupResults } from "./groups.js";
import { expectReadable, type FlagMeasurement, measureRedFlag } from "./red-flag.js";
import { tokenMaps } from "./token-maps.js";
import { utilityResult } from "./utility.js";

/** Loads an adapter over the model; called when its turn has come, so that one at a time is in memory. */
export type AdapterLoader = () => Promise<FlaggedModel>;

/** What is measured, and on what. */
export interface EvaluationInput {
  readonly model: Model;
  /** Adapters of the same training under several seeds. */
  readonly adapters: readonly AdapterLoader[];
  readonly harmful: ExampleFile;
  readonly benign: ExampleFile;
  /** When the flag counts as raised; as each adapter was calibrated by default. */
  readonly decision?: Decision | undefined;
  /** Adapters of the Fixed-Pos baseline. */
  readonly fixedPos?: readonly AdapterLoader[];
  /** Makes what the flag is compared with, once the flag has been read: its training may take minutes. */
  readonly baselines?: () => Promise<readonly Detector[]>;
  /** What the flag is compared with, and combined with: flagged where either flags. */
  readonly guards?: readonly Detector[];
  /** Called as conversations are answered and read by the flag. */
  readonly onProgress?: (done: number, total: number) => void;
}

export type EvaluationOptions = ConversationOptions & BootstrapOptions;

/** What `evaluate` finds out: `metrics.json` but for how the run came about, and what other commands measure. */
export type Findings = Omit<Evaluation, "version" | "run" | "attacks" | "training" | "sweep">;

/**
 * Measures the red flag on conversations of both classes.
 * @throws FormatError for a file of which nothing can be read, RangeError for a model without a tokenizer or a
 * decision that needs a draw, DivergenceError where P(flag) is NaN
 */
export async function evaluate(input: EvaluationInput, options: EvaluationOptions): Promise<Findings> {
  const { model } = input;
  const harmful = questionsOf(model, input.harmful, options);
  const benign = questionsOf(model, input.benign, options);
  for (const { questions, facts } of [harmful, benign]) {
    if (questions.length > 0) continue;
    throw new FormatError(facts.path, `none of its ${facts.examples} examples fits into the model's context`);
  }
  const questions = { harmful: harmful.questions, benign: benign.questions };
  const { sets, measurements, decisions } = await readAdapters(input, questions, options);
  const [set] = sets;
  const [measurement] = measurements;
  if (!set || !measurement || !model.tokenizer) throw new RangeError("adapters: there must be at least one");
  const redFlag: DetectorReadings = {
    name: "red flag",
    rule: [...decisions].join(" or "),
    seeds: measurements,
    harmful: sets.map((each) => each.harmful),
  };
  const detectors = [redFlag, ...(await readOthers(input, questions, sets, redFlag))];
  const curves = (kind: "harmful" | "benign") =>
    measurements.flatMap((each) => each[kind].map(({ probabilities }) => probabilities));
  return {
    data: { harmful: harmful.facts, benign: benign.facts },
    detectors: detectors.map((detector) => detectorResult(detector, options)),
    groups: groupResults(set, measurements, options),
    along: alongResults(curves("harmful"), curves("benign")),
    utility: utilityResult(utilitiesToCount(questions.benign, measurements), options),
    examples: tokenMaps(model.tokenizer, set, measurement),
  };
}

/** The questions of both classes. */
interface BothQuestions {
  readonly harmful: readonly Question[];
  readonly benign: readonly Question[];
}

function hasOpen({ harmful, benign }: BothQuestions): boolean {
  return harmful.some(isOpen) || benign.some(isOpen);
}

/**
 * What each adapter says, of which conversations, and by which decisions. Where nothing is generated all read the
 * same set.
 */
async function readAdapters(
  input: EvaluationInput,
  questions: BothQuestions,
  { maxTokens }: EvaluationOptions,
): Promise<{ sets: ConversationSet[]; measurements: FlagMeasurement[]; decisions: Set<string> }> {
  const isGenerated = hasOpen(questions);
  const count = questions.harmful.length + questions.benign.length;
  const progress = counter(input.adapters.length * (isGenerated ? 2 : 1) * count, input.onProgress);
  const onAnswer = isGenerated ? progress : () => {};
  const sets: ConversationSet[] = [];
  const measurements: FlagMeasurement[] = [];
  const decisions = new Set<string>();
  for (const load of input.adapters) {
    const flagged = await load();
    try {
      const decision = input.decision ?? flagged.decision;
      expectReadable(decision);
      decisions.add(formatDecision(decision));
      const known = isGenerated ? undefined : sets[0];
      const set = known ?? (await answered(flagged, questions, decision, maxTokens, onAnswer));
      sets.push(set);
      measurements.push(await measureRedFlag(flagged, set, decision, progress));
    } finally {
      flagged.dispose();
    }
  }
  return { sets, measurements, decisions };
}

/** What stands beside the flag: baselines, guards, and the flag together with each guard. */
async function readOthers(
  { fixedPos = [], baselines, guards = [] }: EvaluationInput,
  questions: BothQuestions,
  sets: readonly ConversationSet[],
  redFlag: DetectorReadings,
): Promise<DetectorReadings[]> {
  const distinct = hasOpen(questions) ? sets : sets.slice(0, 1);
  const others: DetectorReadings[] = [];
  if (fixedPos.length > 0) {
    const harmful = fixedPos.map(() => sets[0]?.harmful ?? []);
    others.push({ ...(await readFixedPos(fixedPos, questions)), harmful });
  }
  for (const baseline of (await baselines?.()) ?? []) others.push(await readings(baseline, distinct));
  const guarded: DetectorReadings[] = [];
  for (const guard of guards) guarded.push(await readings(guard, distinct));
  const together = guarded.map((guard) => ({ ...eitherOf(redFlag, guard), harmful: redFlag.harmful }));
  return [...others, ...guarded, ...together];
}

/** What a detector without seeds says of each set of conversations. */
async function readings(detector: Detector, sets: readonly ConversationSet[]): Promise<DetectorReadings> {
  const seeds: Readings[] = [];
  for (const { harmful, benign } of sets) {
    const all = await detector.read([...harmful, ...benign]);
    seeds.push({ harmful: all.slice(0, harmful.length), benign: all.slice(harmful.length) });
  }
  const { name, rule } = detector;
  return { name, rule, seeds, harmful: sets.map((set) => set.harmful) };
}

/** The questions with what the flagged model answers to those that are open. */
async function answered(
  flagged: FlaggedModel,
  questions: BothQuestions,
  decision: Decision,
  maxTokens: number,
  onAnswer: () => void,
): Promise<ConversationSet> {
  const answer = async (list: readonly Question[]) => {
    const conversations: Conversation[] = [];
    for (const question of list) {
      conversations.push(await conversationOf(flagged, question, decision, maxTokens));
      onAnswer();
    }
    return conversations;
  };
  return { harmful: await answer(questions.harmful), benign: await answer(questions.benign) };
}

/**
 * What training has cost is told of text that the model has not written itself, which its own likeliest words would
 * flatter: of the benign conversations that brought a response, and of the others only where none did.
 */
function utilitiesToCount(
  benign: readonly Question[],
  measurements: readonly FlagMeasurement[],
): Utility[][] {
  const allOpen = benign.every(isOpen);
  return measurements.map(({ utility }) =>
    utility.filter((_, i) => allOpen || !isOpen(benign[i] as Question)),
  );
}

function counter(total: number, onProgress: EvaluationInput["onProgress"]): () => void {
  let done = 0;
  return () => onProgress?.(++done, total);
}
