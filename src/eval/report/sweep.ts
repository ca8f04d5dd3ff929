import * as Plot from "@observablehq/plot";
import type { Evaluation, SweepPoint, SweepResult } from "../evaluation.js";
import { mean } from "../metrics.js";
import { chart, figure, shortName } from "./chart.js";
import {
  type NumberFormat,
  numberColumn,
  PERCENT,
  PLAIN,
  table,
  textCell,
  textColumn,
  UNIT,
} from "./format.js";
import { html, type Markup } from "./html.js";

/** Width of the small charts, of which a desktop has four beside one another. */
const SMALL_WIDTH = 280;

interface Metric {
  readonly field: "auroc" | "tpr_at_1_percent_fpr" | "kl_per_token" | "perplexity_ratio";
  readonly name: string;
  readonly format: NumberFormat;
}

const METRICS: readonly Metric[] = [
  { field: "auroc", name: "AUROC", format: UNIT },
  { field: "tpr_at_1_percent_fpr", name: "TPR at 1\u202f% FPR", format: PERCENT },
  { field: "kl_per_token", name: "KL, nats a token", format: PLAIN },
  { field: "perplexity_ratio", name: "Perplexity ratio", format: UNIT },
];

/** The points of one setting under all its seeds. */
interface Setting {
  /** From 1, as the chart and the table number it. */
  readonly number: number;
  readonly values: SweepPoint["values"];
  readonly points: readonly SweepPoint[];
}

/** How flag and utility depend on hyperparameters: the trade-off, each parameter by itself, and all numbers. */
export function sweepSection({ sweep }: Evaluation): Markup | null {
  if (!sweep || sweep.points.length + sweep.failed.length === 0) return null;
  const bySetting = groupBy(sweep.points, ({ values }) => JSON.stringify(values));
  const settings = [...bySetting.values()].map((points, i) => ({
    ...{ number: i + 1, values: points[0]?.values ?? [], points },
  }));
  const charts = sweep.parameters
    .map((name, i) => sensitivity(sweep.points, name, i))
    .filter((found) => found !== null);
  return html`${settings.length > 0 && tradeOff(settings, sweep.parameters)}
${
  charts.length > 0 &&
  html`${charts}
<p class="note">A circle is a trained adapter; a line is their mean at each value, over seeds and the other
parameters.</p>`
}
${settings.length > 0 && settingsTable(settings, sweep.parameters)}
${failures(sweep)}`;
}

/** Items by their key, in the order of its first. `Map.groupBy` is younger than Node 20. */
function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group) group.push(item);
    else groups.set(keyOf(item), [item]);
  }
  return groups;
}

function tradeOff(settings: readonly Setting[], parameters: readonly string[]): Markup {
  const points = settings.map(({ number, points }) => ({
    label: `${number}`,
    kl: mean(points.map(({ kl_per_token: kl }) => kl)),
    tpr: mean(points.map(({ tpr_at_1_percent_fpr: tpr }) => tpr)),
  }));
  const isLog = points.every(({ kl }) => kl > 0);
  const drawn = chart("True-positive rate against KL, a dot for each setting", {
    height: 300,
    x: {
      ...{ label: "KL to the reference, nats a token", type: isLog ? "log" : "linear", inset: 14 },
      ...{ ticks: 4, tickFormat: PLAIN.value },
    },
    y: { label: "TPR at 1\u202f% FPR", tickFormat: "~%", ticks: 5, grid: true, inset: 14 },
    marks: [
      Plot.dot(points, { x: "kl", y: "tpr", fill: "var(--flag)", stroke: "var(--page)", r: 9 }),
      Plot.text(points, { x: "kl", y: "tpr", text: "label", fill: "var(--page)", fontWeight: 600 }),
    ],
  });
  return html`<div class="figures">${figure(
    `What the flag finds against what it costs: the upper left is best. A dot is the mean over the seeds of a setting \
of ${parameters.join(", ")}, numbered as in the table.`,
    drawn,
  )}</div>`;
}

/** The metrics over the values of one parameter, whatever the others are. */
function sensitivity(points: readonly SweepPoint[], name: string, index: number): Markup | null {
  const byValue = groupBy(points, ({ values }) => values[index] ?? "");
  if (byValue.size < 2) return null;
  const values = [...byValue.keys()].sort((a, b) => Number(a) - Number(b));
  const figures = METRICS.map(({ field, name: metric, format }) => {
    const means = values.map((value) => ({
      ...{ value, mean: mean((byValue.get(value) ?? []).map((point) => point[field])) },
    }));
    const drawn = chart(`${metric} by ${name}`, {
      width: SMALL_WIDTH,
      height: 190,
      x: { type: "point", domain: values, label: shortName(name), padding: 0.5 },
      y: {
        ...{ label: metric, labelAnchor: "top", labelArrow: false, grid: true, ticks: 4 },
        ...{ zero: field === "kl_per_token", inset: 4, tickFormat: format === PERCENT ? "~%" : PLAIN.value },
      },
      marks: [
        Plot.line(means, { x: "value", y: "mean", stroke: "var(--flag)", strokeWidth: 2 }),
        Plot.dot(points, {
          ...{ x: (point: SweepPoint) => point.values[index], y: field, r: 3 },
          ...{ fill: "var(--page)", stroke: "currentColor" },
        }),
      ],
    });
    return figure(null, drawn);
  });
  return html`<h3>Sensitivity to <code>${name}</code></h3>
<div class="figures small">${figures}</div>`;
}

function settingsTable(settings: readonly Setting[], parameters: readonly string[]): Markup {
  const columns = [
    textColumn("Setting"),
    ...[...parameters, "Seeds", ...METRICS.map(({ name }) => name)].map(numberColumn),
  ];
  const rows = settings.map(({ number, values, points }) => {
    const cells = METRICS.map(({ field, format }) => {
      const found = points.map((point) => point[field]);
      const range =
        found.length > 1 && `${format.bare(Math.min(...found))} to ${format.bare(Math.max(...found))}`;
      const small = range && html`<small>${range}</small>`;
      return html`<td class="number">${format.value(mean(found))} ${small}</td>`;
    });
    return html`<tr><th scope="row">${number}</th>${values.map((value) => html`<td class="number">${value}</td>`)}
<td class="number">${points.map(({ seed }) => seed).join(", ")}</td>${cells}</tr>
`;
  });
  return html`<h3>Settings</h3>
${table("Settings of the sweep", columns, rows)}
<p class="note">Means over the seeds of a setting, and their least and largest.</p>`;
}

function failures({ parameters, failed }: SweepResult): Markup | null {
  if (failed.length === 0) return null;
  const rows = failed.map(
    ({
      values,
      seed,
      reason,
    }) => html`<tr><th scope="row">${parameters.map((name, i) => `${name} ${values[i]}`).join(", ")}</th>
<td class="number">${seed}</td>${textCell(reason)}</tr>
`,
  );
  const columns = [textColumn("Setting"), numberColumn("Seed"), textColumn("Where")];
  return html`<h3>Diverged</h3>
${table("Settings whose training diverged", columns, rows)}`;
}
