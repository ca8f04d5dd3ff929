import type { Estimate, Evaluation } from "../evaluation.js";
import { interval, type NumberFormat, PERCENT, PLAIN, shortRule, UNIT } from "./format.js";
import { html, type Markup } from "./html.js";

/** The figures of the red flag that come first, each with its interval. Null where there is none. */
export function headline({ detectors, utility, run }: Evaluation): Markup | null {
  const [flag] = detectors;
  const tiles = [
    tile("AUROC", `of ${scoreOf(run.decision)}`, flag?.auroc, UNIT),
    tile("Found at 1\u202f% FPR", "of harmful conversations", flag?.tpr_at_1_percent_fpr, PERCENT),
    tile(
      "False positives",
      `of benign ones, by ${shortRule(flag?.rule ?? "")}`,
      flag?.false_positive_rate,
      PERCENT,
    ),
    tile("KL to the reference", "nats a token, benign text", utility?.kl_per_token, PLAIN),
  ].filter((found) => found !== null);
  if (tiles.length === 0) return null;
  return html`<section class="headline" aria-label="Headline figures">
<dl>
${tiles}</dl>
${
  run.resamples > 0 &&
  html`<p class="note">Ranges are intervals of 95&nbsp;%: percentiles of ${run.resamples} bootstrap resamples over
examples${run.adapters.length > 1 && ` and the ${run.adapters.length} adapters`}.</p>`
}
</section>`;
}

/** What a decision compares with its level: a conversation's score. */
function scoreOf(decision: string): string {
  if (decision.startsWith("cumulative")) return "P(flag so far)";
  if (decision.startsWith("ema")) return "the largest mean of P(flag)";
  return "the largest P(flag)";
}

function tile(
  name: string,
  detail: string,
  estimate: Estimate | null | undefined,
  format: NumberFormat,
): Markup | null {
  if (!estimate) return null;
  return html`<div><dt>${name}</dt><dd><strong>${format.value(estimate.value)}</strong>
<span class="interval">${interval(estimate, format)}</span> <small>${detail}</small></dd></div>
`;
}
