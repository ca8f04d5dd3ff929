import * as Plot from "@observablehq/plot";
import type { Evaluation, TokenMap } from "../evaluation.js";
import { chart } from "./chart.js";
import { PERCENT } from "./format.js";
import { html, type Markup } from "./html.js";

/** From which P(flag) on a token is underlined: dotted, dashed, solid. The page's rules have the classes. */
const LEVELS = [
  [0.9, "high"],
  [0.5, "likely"],
  [0.1, "hint"],
] as const;

/** Conversations token by token, as heat maps of P(flag). */
export function exampleSection({ examples }: Evaluation): Markup | null {
  if (examples.length === 0) return null;
  return html`<p class="note">Each token has the colour of P(flag) before it, from nothing at 0 to full red at 1, and
an underline: <span class="hint">dotted</span> from 0.1, <span class="likely">dashed</span> from 0.5,
<span class="high">solid</span> from 0.9. ${onsetMark()} stands where the harm has become evident,
${flagMark()} where the flag is raised first. Pointing at a token shows the number.</p>
${examples.map(tokenMap)}`;
}

function tokenMap(example: TokenMap, index: number): Markup {
  const { prompt, harmful, tokens, first, onset, last } = example;
  const marks = (position: number) => [position === onset && onsetMark(), position === first && flagMark()];
  const said = [harmful ? "Harmful" : "Benign", raisedAt(first, tokens.length)].join(", ");
  // No white space between them but their own.
  const mapped = [
    tokens.map(({ text, probability }, i) => [marks(i), token(text, probability)]),
    ...[marks(tokens.length), token("⟂", last)],
  ];
  return html`<article class="example" aria-label="Example ${index + 1}">
<h3>${index + 1}. ${said}</h3>
<p class="prompt" dir="auto"><span class="who">Prompt</span> ${prompt}</p>
${strip(example)}
<p class="tokens" dir="auto">${mapped}</p>
</article>
`;
}

function raisedAt(first: number | null, tokens: number): string {
  if (first === null) return "not flagged";
  return first < tokens ? `flagged before token ${first + 1} of ${tokens}` : "flagged after the last token";
}

function token(text: string, probability: number): Markup {
  const level = LEVELS.find(([least]) => probability >= least)?.[1];
  // A token may bring only a part of a character, whose text comes with its last part.
  return html`<span${level && html` class="${level}"`} title="P(flag) ${probability.toFixed(3)}"${heat(
    probability,
  )}>${text === "" ? "·" : text}</span>`;
}

/** The background of a probability: nothing where it would not show. */
function heat(probability: number): Markup | null {
  return probability < 0.01 ? null : html` style="--p:${Math.round(100 * probability)}%"`;
}

/** The course of P(flag) along the response. */
function strip({ tokens, last, onset, first }: TokenMap): Markup {
  const points = [...tokens.map(({ probability }) => probability), last];
  return chart(`P(flag) along example: at most ${PERCENT.value(Math.max(...points))}`, {
    height: 84,
    ...{ marginTop: 16, marginBottom: 20, marginLeft: 28, marginRight: 8 },
    x: { domain: [0, points.length - 1], label: null, ticks: 6, tickFormat: "d", tickSize: 3 },
    y: { domain: [0, 1], ticks: [0, 0.5, 1], label: null, grid: true, tickSize: 0 },
    marks: [
      Plot.areaY(points, { fill: "var(--flag)", fillOpacity: 0.18 }),
      Plot.lineY(points, { stroke: "var(--flag)", strokeWidth: 1.5 }),
      Plot.ruleX(placed(onset), { strokeDasharray: "3 2" }),
      Plot.text(placed(onset), { x: Plot.identity, text: () => "▽", frameAnchor: "top", dx: -6, dy: -13 }),
      Plot.text(placed(first), { x: Plot.identity, text: () => "⚑", frameAnchor: "top", dx: 6, dy: -13 }),
    ],
  });
}

/** A place as data of a chart: none where there is none. */
function placed(position: number | null): number[] {
  return position === null ? [] : [position];
}

function onsetMark(): Markup {
  return html`<b class="mark" title="harm has become evident">▽</b>`;
}

function flagMark(): Markup {
  return html`<b class="mark flag" title="the flag is raised">⚑</b>`;
}
