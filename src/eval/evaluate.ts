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
import { type FlagMeasurement, measureRedFlag } from "./red-flag.js";
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
  /** What the flag is compared with. */
  readonly baselines?: readonly Detector[];
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
 * @throws FormatError for a file of which nothing can be read, RangeError for a model without a tokenizer
 */
export async function evaluate(input: EvaluationInput, options: EvaluationOptions): Promise<Findings> {
  const { model, adapters } = input;
  const harmful = questionsOf(model, input.harmful, options);
  const benign = questionsOf(model, input.benign, options);
  for (const { questions, facts } of [harmful, benign]) {
    if (questions.length > 0) continue;
    throw new FormatError(facts.path, `none of its ${facts.examples} examples fits into the model's context`);
  }
  const questions = { harmful: harmful.questions, benign: benign.questions };
  const all = [...questions.harmful, ...questions.benign];
  const isGenerated = all.some(isOpen);
  const progress = counter(adapters.length * (isGenerated ? 2 : 1) * all.length, input.onProgress);

  // Where nothing is generated every adapter reads the same conversations.
  const sets: ConversationSet[] = [];
  const measurements: FlagMeasurement[] = [];
  const decisions = new Set<string>();
  for (const load of adapters) {
    const flagged = await load();
    try {
      const decision = input.decision ?? flagged.decision;
      decisions.add(formatDecision(decision));
      const [last] = sets;
      const set =
        last && !isGenerated
          ? last
          : await answered(
              flagged,
              questions,
              decision,
              options.maxTokens,
              isGenerated ? progress : () => {},
            );
      sets.push(set);
      measurements.push(await measureRedFlag(flagged, set, decision, progress));
    } finally {
      flagged.dispose();
    }
  }
  const [set] = sets;
  const [measurement] = measurements;
  if (!set || !measurement || !model.tokenizer) throw new RangeError("adapters: there must be at least one");

  const redFlag: DetectorReadings = {
    name: "red flag",
    rule: [...decisions].join(" or "),
    seeds: measurements,
    harmful: sets.map((each) => each.harmful),
  };
  const distinct = isGenerated ? sets : sets.slice(0, 1);
  const detectors = [redFlag];
  if (input.fixedPos && input.fixedPos.length > 0) {
    const harmfulOf = input.fixedPos.map(() => set.harmful);
    detectors.push({ ...(await readFixedPos(input.fixedPos, questions)), harmful: harmfulOf });
  }
  for (const baseline of input.baselines ?? []) detectors.push(await readings(baseline, distinct));
  const guards: DetectorReadings[] = [];
  for (const guard of input.guards ?? []) guards.push(await readings(guard, distinct));
  const together = guards.map((guard) => ({ ...eitherOf(redFlag, guard), harmful: redFlag.harmful }));
  detectors.push(...guards, ...together);
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
  questions: { readonly harmful: readonly Question[]; readonly benign: readonly Question[] },
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
