import * as Plot from "@observablehq/plot";
import type { AttackLevel, AttackResult, Estimate, Evaluation } from "../evaluation.js";
import { chart, figure, type LineStyle, legend, lineSwatch, SHARE_SCALE, shortName } from "./chart.js";
import { counted, estimateCell, numberColumn, PERCENT, table, textCell, textColumn } from "./format.js";
import { html, type Markup } from "./html.js";

/** What a level is measured by: its line, its mark, and how far it stands beside the others. */
interface Measure {
  readonly field: "flag_rate" | "success" | "evaded";
  readonly name: string;
  readonly style: LineStyle;
  readonly symbol: "circle" | "square" | "triangle";
  readonly mark: Markup;
  readonly dx: number;
}

const MEASURES: readonly Measure[] = [
  {
    field: "flag_rate",
    name: "Flag raised",
    style: { stroke: "var(--flag)", strokeWidth: 2.25 },
    symbol: "circle",
    mark: html`<circle cx="16" cy="6" r="4" fill="var(--flag)"/>`,
    dx: -6,
  },
  {
    field: "success",
    name: "Attack succeeds",
    style: { stroke: "var(--line-2)", strokeWidth: 1.75, strokeDasharray: "5 3" },
    symbol: "square",
    mark: html`<rect x="12" y="2" width="8" height="8" fill="var(--line-2)"/>`,
    dx: 0,
  },
  {
    field: "evaded",
    name: "Succeeds without a flag",
    style: { stroke: "var(--benign)", strokeWidth: 1.75, strokeDasharray: "1.5 2.5" },
    symbol: "triangle",
    mark: html`<path d="M16 1L21 10H11Z" fill="var(--benign)"/>`,
    dx: 6,
  },
];

/** Attacks by their budget, and all in one table. */
export function attackSection({ attacks }: Evaluation): Markup | null {
  const run = attacks.filter(({ levels }) => levels.length > 0);
  if (run.length === 0) return null;
  const shown = MEASURES.filter(({ field }) =>
    run.some(({ levels }) => levels.some((level) => level[field])),
  );
  return html`${legend(shown.map(({ name, style, mark }) => ({ name, swatch: lineSwatch(style, mark) })))}
<p class="note">Ranges are Wilson's score intervals of 95&nbsp;% over the conversations.</p>
<div class="figures">${run.map(attackFigure)}</div>
${attackTable(run)}`;
}

function attackFigure({ attack, options, examples, levels }: AttackResult): Markup {
  const labels = levels.map(({ label }) => shortName(label));
  // Long labels lie aslant, or they would run into one another.
  const isTight = labels.join("").length > 44;
  const longest = Math.max(...labels.map((label) => label.length));
  const series = MEASURES.map((measure) => ({ ...measure, points: pointsOf(levels, measure.field) })).filter(
    ({ points }) => points.length > 0,
  );
  const drawn = chart(`${attack}: shares by level of the attack`, {
    height: 230 + (isTight ? 4 * longest : 0),
    marginBottom: isTight ? 30 + 4 * longest : 30,
    marginLeft: isTight ? Math.max(44, 5.4 * longest) : 44,
    x: {
      type: "point",
      domain: levels.map((_, i) => i),
      label: null,
      padding: 0.5,
      tickFormat: (i: number) => labels[i] ?? "",
      ...(isTight ? { tickRotate: -35 } : {}),
    },
    y: { ...SHARE_SCALE, label: "Share of conversations", grid: true },
    marks: series.flatMap(({ points, style, symbol, dx }) => [
      Plot.line(points, { x: "level", y: "value", ...style, dx }),
      Plot.ruleX(points, { x: "level", y1: "low", y2: "high", stroke: style.stroke, dx }),
      Plot.dot(points, { x: "level", y: "value", symbol, fill: style.stroke, r: 4, dx }),
    ]),
  });
  const settings = Object.entries(options).map(([name, value]) => `${name} ${value}`);
  return figure(
    [
      html`<strong>${attack}</strong> on ${counted(examples, "conversation")}`,
      settings.length > 0 && `: ${settings.join(", ")}`,
      ".",
    ],
    drawn,
  );
}

function pointsOf(levels: readonly AttackLevel[], field: Measure["field"]): (Estimate & { level: number })[] {
  return levels.flatMap((level, i) => {
    const estimate = level[field];
    return estimate ? [{ ...estimate, level: i }] : [];
  });
}

function attackTable(attacks: readonly AttackResult[]): Markup {
  const rows = attacks.flatMap(({ attack, levels }) =>
    levels.map((level, i) => {
      const name = i === 0 && html`<th scope="rowgroup" rowspan="${levels.length}">${attack}</th>`;
      return html`<tr>${name}${textCell(level.label)}
${MEASURES.map(({ field }) => estimateCell(level[field], PERCENT))}</tr>
`;
    }),
  );
  const numbers = MEASURES.map(({ name }) => numberColumn(name));
  return table("Attacks", [textColumn("Attack"), textColumn("Level"), ...numbers], rows);
}
