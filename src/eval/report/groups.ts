import * as Plot from "@observablehq/plot";
import type { Evaluation, GroupResult } from "../evaluation.js";
import { chart, figure, legend, SHARE_SCALE, shortName, swatch } from "./chart.js";
import {
  estimateCell,
  numberCell,
  numberColumn,
  PERCENT,
  PLAIN,
  table,
  textCell,
  textColumn,
  UNIT,
} from "./format.js";
import { html, type Markup } from "./html.js";

const ROW = 24;

/** The red flag by category and by language. */
export function groupSection({ groups }: Evaluation): Markup | null {
  if (groups.length === 0) return null;
  const figures = (["category", "language"] as const)
    .map((by) =>
      groupFigure(
        by,
        groups.filter((group) => group.by === by),
      ),
    )
    .filter((found) => found !== null);
  return html`${legend([
    { name: "harmful", swatch: swatch(html`<circle cx="16" cy="6" r="5" fill="var(--flag)"/>`) },
    {
      name: "benign",
      swatch: swatch(
        html`<rect x="11.5" y="1.5" width="9" height="9" fill="none" stroke="var(--benign)" stroke-width="2"/>`,
      ),
    },
  ])}
<div class="figures">${figures}</div>
${groupTable(groups)}`;
}

function groupFigure(by: GroupResult["by"], groups: readonly GroupResult[]): Markup | null {
  if (groups.length === 0) return null;
  const values = [...new Set(groups.map(({ value }) => value))];
  const names = values.map(shortName);
  const points = groups.map(({ value, harmful, flag_rate: { value: rate, low, high } }) => ({
    ...{ row: values.indexOf(value), harmful, rate, low, high },
  }));
  const place = { x: "rate", y: "row", r: 5 } as const;
  const drawn = chart(`Flag rate by ${by}, with intervals`, {
    height: 64 + ROW * values.length,
    marginTop: 8,
    marginLeft: 16 + 7 * Math.max(...names.map((name) => name.length)),
    marginRight: 24,
    x: { ...SHARE_SCALE, label: "Flag rate", grid: true },
    y: {
      ...{ type: "band", domain: values.map((_, row) => row), label: null, tickSize: 0 },
      tickFormat: (row: number) => names[row] ?? "",
    },
    marks: [
      Plot.ruleY(points, {
        ...{ x1: "low", x2: "high", y: "row", strokeWidth: 1.75 },
        stroke: ({ harmful }) => (harmful ? "var(--flag)" : "var(--benign)"),
      }),
      Plot.dot(
        points.filter(({ harmful }) => harmful),
        { ...place, fill: "var(--flag)" },
      ),
      Plot.dot(
        points.filter(({ harmful }) => !harmful),
        { ...place, symbol: "square", fill: "var(--page)", stroke: "var(--benign)", strokeWidth: 2 },
      ),
    ],
    color: { type: "identity" },
  });
  return figure(`Share of conversations flagged, by ${by}.`, drawn);
}

function groupTable(groups: readonly GroupResult[]): Markup {
  const rows = groups.map(
    ({ value, by, harmful, examples, flag_rate: rate, auroc }) => html`<tr><th scope="row">${value}</th>
${textCell(by)}${textCell(harmful ? "harmful" : "benign")}
${numberCell(examples, PLAIN)}${estimateCell(rate, PERCENT)}${estimateCell(auroc, UNIT)}</tr>
`,
  );
  const columns = [
    ...["Group", "By", "Class"].map(textColumn),
    ...["Examples", "Flag rate", "AUROC"].map(numberColumn),
  ];
  return table("Groups", columns, rows);
}
