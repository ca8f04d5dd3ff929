import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import { type Content, html, Markup } from "./html.js";

/**
 * Width that charts are drawn at, in their own pixels. A phone shows them at about four fifths of it and a
 * desktop's column at a little more than all, so that type stays readable on both.
 */
export const CHART_WIDTH = 460;

/** How a line is told from the others: by its colour, and in grey by its dashes. */
export interface LineStyle {
  readonly stroke: string;
  readonly strokeWidth: number;
  readonly strokeDasharray?: string;
}

/** Harmful conversations, and the flag itself. */
export const HARMFUL_LINE: LineStyle = { stroke: "var(--flag)", strokeWidth: 2.25 };
export const BENIGN_LINE: LineStyle = { stroke: "var(--benign)", strokeWidth: 2, strokeDasharray: "5 3" };

const COLOURS = 6;
const DASHES = ["5 3", "1.5 2.5", "9 3 2 3", "2.5 1.5", "12 3"];

/** The style of the line at `index` of several; the first is the flag's. Thirty differ. */
export function lineStyle(index: number): LineStyle {
  if (index === 0) return HARMFUL_LINE;
  const i = index - 1;
  return {
    stroke: `var(--line-${(i % COLOURS) + 1})`,
    strokeWidth: 1.75,
    strokeDasharray: DASHES[i % DASHES.length] as string,
  };
}

/**
 * A chart as an inline SVG that takes its colours from the page.
 * @param label what it shows, for who cannot see it
 */
export function chart(label: string, { x, ...options }: Plot.PlotOptions): Markup {
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const svg = Plot.plot({
    document,
    width: CHART_WIDTH,
    height: 260,
    marginLeft: 44,
    // Plot's own margins are for smaller type.
    marginBottom: 44,
    className: "chart",
    ariaLabel: label,
    x: { labelOffset: 40, ...x },
    ...options,
  });
  svg.setAttribute("role", "img");
  // The page has the rules.
  svg.querySelector("style")?.remove();
  return new Markup(svg.outerHTML);
}

/** Charts or other pictures with a caption. */
export function figure(caption: Content, ...pictures: readonly Content[]): Markup {
  return html`<figure>
${pictures}
<figcaption>${caption}</figcaption>
</figure>`;
}

/** An entry of a legend: a line, or a mark. */
export interface LegendEntry {
  readonly name: string;
  readonly swatch: Markup;
}

/** Which line is whose. */
export function legend(entries: readonly LegendEntry[]): Markup {
  return html`<ul class="legend">${entries.map(({ name, swatch }) => html`<li>${swatch} ${name}</li>`)}</ul>`;
}

/** A piece of a line for a legend, with its mark where it has one. */
export function lineSwatch({ stroke, strokeWidth, strokeDasharray }: LineStyle, mark?: Markup): Markup {
  const dashes = strokeDasharray && html` stroke-dasharray="${strokeDasharray}"`;
  return swatch(
    html`<path d="M1 6H31" stroke="${stroke}" stroke-width="${strokeWidth}"${dashes} fill="none"/>${mark}`,
  );
}

/** A picture of a legend, in a box of 32 by 12. */
export function swatch(content: Markup): Markup {
  return html`<svg class="swatch" viewBox="0 0 32 12" width="32" height="12" aria-hidden="true">${content}</svg>`;
}

/** Most characters of a name in a chart; a table beside it has it whole. */
const NAME = 20;

/** A name as a chart has room for it. */
export function shortName(name: string): string {
  return name.length > NAME ? `${name.slice(0, NAME - 1)}…` : name;
}

/** A scale of shares from 0 to 1, in percent. */
export const SHARE_SCALE = {
  domain: [0, 1],
  tickFormat: "~%",
  ticks: 5,
} as const satisfies Plot.ScaleOptions;
