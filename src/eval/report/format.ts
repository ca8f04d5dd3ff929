import type { Estimate } from "../evaluation.js";
import { type Content, html, type Markup } from "./html.js";

/** A narrow space that no line breaks at. */
const THIN = "\u202f";

/** Writes a number of one kind: `value` with its unit, `bare` for the ends of an interval. */
export interface NumberFormat {
  value(value: number): string;
  bare(value: number): string;
}

/** A share, in percent to a tenth. */
export const PERCENT: NumberFormat = {
  value: (value) => `${PERCENT.bare(value)}${THIN}%`,
  bare: (value) => (100 * value).toFixed(1),
};

/** An area or another number between 0 and 1, to three places. */
export const UNIT: NumberFormat = { value: (value) => value.toFixed(3), bare: (value) => value.toFixed(3) };

/** Any number, to three digits. */
export const PLAIN: NumberFormat = { value: significant, bare: significant };

function significant(value: number): string {
  return Math.abs(value) >= 1000 ? Math.round(value).toString() : Number(value.toPrecision(3)).toString();
}

/** A detector's rule or a decision with its numbers to three digits; calibrated thresholds have sixteen. */
export function shortRule(rule: string): string {
  return rule.replace(/\d*\.\d{4,}/g, (number) => significant(Number(number)));
}

/** The interval of an estimate in words. */
export function interval({ low, high }: Estimate, format: NumberFormat): string {
  return `${format.bare(low)} to ${format.bare(high)}`;
}

/** An estimate as a table's cell holds it: the value, and its interval in small type. */
export function estimateCell(estimate: Estimate | null, format: NumberFormat): Markup {
  if (!estimate) return html`<td class="number none">n/a</td>`;
  const range = interval(estimate, format);
  return html`<td class="number">${format.value(estimate.value)} <small>${range}</small></td>`;
}

/** A number, or n/a where there is none, as a table's cell. */
export function numberCell(value: number | null, format: NumberFormat): Markup {
  if (value === null) return html`<td class="number none">n/a</td>`;
  return html`<td class="number">${format.value(value)}</td>`;
}

export function numberColumn(name: string): Column {
  return { name, kind: "number" };
}

export function textColumn(name: string): Column {
  return { name, kind: "text" };
}

/** A count with its noun. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** The middle of some numbers; null of none. */
export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  if (sorted.length === 0) return null;
  const upper = sorted[half] as number;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[half - 1] as number)) / 2;
}

/** A cell of words. */
export function textCell(text: Content): Markup {
  return html`<td>${text}</td>`;
}

/** The head of a column, which stands over numbers or over words. */
export interface Column {
  readonly name: string;
  readonly kind: "number" | "text";
}

/** A table in a box of its own that scrolls where the page is narrow. The first cell of a row names it. */
export function table(label: string, columns: readonly Column[], rows: readonly Markup[]): Markup {
  const cells = columns.map(
    ({ name, kind }) => html`<th scope="col"${kind === "number" && html` class="number"`}>${name}</th>`,
  );
  return html`<div class="scroll" role="region" aria-label="${label}" tabindex="0"><table>
<thead><tr>${cells}</tr></thead>
<tbody>
${rows}</tbody>
</table></div>`;
}
