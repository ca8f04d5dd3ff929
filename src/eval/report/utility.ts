import type { Evaluation } from "../evaluation.js";
import { estimateCell, numberCell, numberColumn, PERCENT, PLAIN, table, textColumn, UNIT } from "./format.js";
import { html, type Markup } from "./html.js";

/** What the flag costs on benign conversations. */
export function utilitySection({ utility }: Evaluation): Markup | null {
  if (!utility) return null;
  const rows: readonly (readonly [string, Markup])[] = [
    ["KL to the reference, nats a token", estimateCell(utility.kl_per_token, PLAIN)],
    ["Perplexity of the reference", numberCell(utility.reference_perplexity, PLAIN)],
    ["Perplexity with the flag", numberCell(utility.perplexity, PLAIN)],
    ["Ratio of the two", estimateCell(utility.perplexity_ratio, UNIT)],
    ["Same likeliest token", estimateCell(utility.agreement, PERCENT)],
    ["Tokens measured", numberCell(utility.tokens, PLAIN)],
  ];
  return table(
    "Utility on benign conversations",
    [textColumn("Against the model before training"), numberColumn("Value")],
    rows.map(([name, cell]) => html`<tr><th scope="row">${name}</th>${cell}</tr>\n`),
  );
}
