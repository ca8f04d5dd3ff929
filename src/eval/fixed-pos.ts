import { formatDecision } from "../flag/decision.js";
import { FlagScorer } from "../flag/score.js";
import type { Question } from "./conversations.js";
import type { DetectorReadings, Reading } from "./detector.js";
import type { AdapterLoader } from "./evaluate.js";

/**
 * The Fixed-Pos baseline: adapters that were trained to flag as the first token of the response only, and are read
 * there only, each by its own decision.
 */
export async function readFixedPos(
  adapters: readonly AdapterLoader[],
  { harmful, benign }: { readonly harmful: readonly Question[]; readonly benign: readonly Question[] },
): Promise<Pick<DetectorReadings, "name" | "rule" | "seeds">> {
  const rules = new Set<string>();
  const seeds: { harmful: Reading[]; benign: Reading[] }[] = [];
  for (const load of adapters) {
    const flagged = await load();
    const scorer = new FlagScorer(flagged);
    const read = async (questions: readonly Question[]) => {
      const readings: Reading[] = [];
      for (const { sequence } of questions) {
        const { highest, first } = await scorer.score({ prompt: sequence.prompt, response: [] });
        readings.push({ score: highest, flagged: first !== null, first });
      }
      return readings;
    };
    try {
      rules.add(formatDecision(flagged.decision));
      seeds.push({ harmful: await read(harmful), benign: await read(benign) });
    } finally {
      scorer.dispose();
      flagged.dispose();
    }
  }
  return { name: "Fixed-Pos", rule: `${[...rules].join(" or ")} before the first token`, seeds };
}
