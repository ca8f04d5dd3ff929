import type { AttackResult, DetectorResult, Estimate, Evaluation } from "../eval/evaluation.js";
import { table } from "./terminal.js";

/** An evaluation for the terminal: detectors, utility, attacks, and what data that was. */
export function evaluationTables(evaluation: Evaluation): string {
  const { detectors, utility, data } = evaluation;
  const lines = [
    table([
      ["", "AUROC", "TPR at 1 % FPR", "at 0.1 %", "flagged", "falsely", "rule"],
      ...detectors.map(detectorRow),
    ]),
    "",
  ];
  if (utility) {
    lines.push(
      table([
        ["on benign text", ""],
        ["KL, nats a token", interval(utility.kl_per_token, 4)],
        ["perplexity ratio", interval(utility.perplexity_ratio, 3)],
        ["same likeliest token", percentInterval(utility.agreement)],
      ]),
      "",
    );
  }
  if (evaluation.attacks.length > 0) lines.push(table(attackRows(evaluation.attacks)), "");
  const counts = (["harmful", "benign"] as const).map((kind) => {
    const { examples, generated, left_out } = data[kind];
    const notes = [
      ...(generated > 0 ? [`${generated} answered by the model`] : []),
      ...(left_out > 0 ? [`${left_out} left out`] : []),
    ];
    return `${examples} ${kind}${notes.length > 0 ? ` (${notes.join(", ")})` : ""}`;
  });
  if (data.harmful.generated > 0 !== data.benign.generated > 0) {
    lines.push(
      "The model has answered one class only, and a detector may tell who wrote: see --generate.",
      "",
    );
  }
  lines.push(`${counts.join(", ")}; intervals of 95 %, ${evaluation.run.resamples} resamples`);
  return lines.join("\n");
}

/** The first and the last level of each attack. */
function attackRows(attacks: readonly AttackResult[]): string[][] {
  const rows = attacks.flatMap(({ attack, levels }) =>
    [levels[0], levels.at(-1)].flatMap((level) =>
      level
        ? [
            [
              `${attack}, ${level.label}`,
              percentInterval(level.flag_rate),
              percentInterval(level.success),
              percentInterval(level.evaded),
            ],
          ]
        : [],
    ),
  );
  return [["attack", "flagged", "says what is wanted", "evaded"], ...rows];
}

function detectorRow(detector: DetectorResult): string[] {
  return [
    detector.name,
    interval(detector.auroc, 3),
    percentInterval(detector.tpr_at_1_percent_fpr),
    percentInterval(detector.tpr_at_01_percent_fpr),
    percentInterval(detector.flag_rate),
    percentInterval(detector.false_positive_rate),
    detector.rule,
  ];
}

/** A value with its interval, or a dash. */
function interval(estimate: Estimate | null, digits: number): string {
  if (!estimate) return "-";
  const { value, low, high } = estimate;
  return `${value.toFixed(digits)} [${low.toFixed(digits)}, ${high.toFixed(digits)}]`;
}

/** The same in percent. */
function percentInterval(estimate: Estimate | null): string {
  if (!estimate) return "-";
  const [value, low, high] = [estimate.value, estimate.low, estimate.high].map((x) => (100 * x).toFixed(1));
  return `${value} % [${low}, ${high}]`;
}
