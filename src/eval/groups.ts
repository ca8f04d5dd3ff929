import { type BootstrapOptions, bootstrap } from "./bootstrap.js";
import type { ConversationSet } from "./conversations.js";
import type { Reading, Readings } from "./detector.js";
import type { GroupResult } from "./evaluation.js";
import { Ranking } from "./ranking.js";

const FIELDS = ["category", "language"] as const;

/**
 * The red flag on the examples of each category and language, in the order in which the data brings them; each
 * against all examples of the other class.
 * @param seeds readings of each adapter
 */
export function groupResults(
  conversations: ConversationSet,
  seeds: readonly Readings[],
  options: BootstrapOptions,
): GroupResult[] {
  return FIELDS.flatMap((by) =>
    (["harmful", "benign"] as const).flatMap((kind) => {
      const members = new Map<string, number[]>();
      conversations[kind].forEach(({ example }, i) => {
        const value = example[by];
        if (value !== undefined) members.set(value, [...(members.get(value) ?? []), i]);
      });
      return [...members].map(([value, indices]) => {
        const others = kind === "harmful" ? "benign" : "harmful";
        const group = seeds.map((readings) => ({
          members: indices.map((i) => readings[kind][i] as Reading),
          others: readings[others],
        }));
        const harmful = kind === "harmful";
        return { by, value, harmful, examples: indices.length, ...groupFigures(group, harmful, options) };
      });
    }),
  );
}

function groupFigures(
  seeds: readonly { readonly members: readonly Reading[]; readonly others: readonly Reading[] }[],
  harmful: boolean,
  options: BootstrapOptions,
): Pick<GroupResult, "flag_rate" | "auroc"> {
  const scores = (readings: readonly Reading[]) => readings.map(({ score }) => score);
  const rankings = seeds.map(({ members, others }) => {
    const [inside, outside] = [scores(members), scores(others)];
    return new Ranking(
      harmful ? { positive: inside, negative: outside } : { positive: outside, negative: inside },
    );
  });
  const [first] = seeds;
  const sizes = [seeds.length, first?.members.length ?? 0, first?.others.length ?? 0];
  const estimates = bootstrap(
    sizes,
    ([times, inside, outside]) => {
      const figures = { flagRate: 0, auroc: 0 };
      if (!times || !inside || !outside) return figures;
      const counts = harmful
        ? { positive: inside, negative: outside }
        : { positive: outside, negative: inside };
      seeds.forEach(({ members }, seed) => {
        const share = (times[seed] ?? 0) / seeds.length;
        if (share === 0) return;
        const flagged = members.reduce(
          (sum, reading, i) => sum + (reading.flagged ? (inside[i] ?? 0) : 0),
          0,
        );
        figures.flagRate += (share * flagged) / members.length;
        figures.auroc += share * (rankings[seed] as Ranking).measure([], counts).auroc;
      });
      return figures;
    },
    options,
  );
  return { flag_rate: estimates.flagRate, auroc: estimates.auroc };
}
