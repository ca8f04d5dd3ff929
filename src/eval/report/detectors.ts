import * as Plot from "@observablehq/plot";
import type { DetectorResult, Evaluation } from "../evaluation.js";
import { chart, figure, legend, lineStyle, lineSwatch, SHARE_SCALE } from "./chart.js";
import {
  estimateCell,
  median,
  numberCell,
  numberColumn,
  PERCENT,
  PLAIN,
  shortRule,
  table,
  textCell,
  textColumn,
  UNIT,
} from "./format.js";
import { html, type Markup } from "./html.js";

/** The least false-positive rate of the chart's low end. */
const LOWEST_RATE = 0.001;

/** All detectors in one table, and their ROC curves. */
export function detectorSection({ detectors, data }: Evaluation): Markup | null {
  if (detectors.length === 0) return null;
  return html`${detectorTable(detectors)}
${rocFigures(detectors, data.benign.examples - data.benign.left_out)}`;
}

function detectorTable(detectors: readonly DetectorResult[]): Markup {
  const hasSeeds = detectors.some(({ auroc_by_seed: seeds }) => seeds.length > 1);
  const hasDelays = detectors.some(({ delays }) => delays.length > 0);
  const numbers = [
    ...["AUROC", "Average precision", "TPR at 1\u202f% FPR", "TPR at 0.1\u202f% FPR", "Flag rate"],
    ...["False positives", ...(hasDelays ? ["Median delay"] : []), ...(hasSeeds ? ["AUROC by seed"] : [])],
  ];
  const columns = [textColumn("Detector"), ...numbers.map(numberColumn), textColumn("Rule")];
  const rows = detectors.map(
    (detector, i) => html`<tr${i === 0 && html` class="own"`}><th scope="row">${detector.name}</th>
${estimateCell(detector.auroc, UNIT)}${estimateCell(detector.average_precision, UNIT)}
${estimateCell(detector.tpr_at_1_percent_fpr, PERCENT)}${estimateCell(detector.tpr_at_01_percent_fpr, PERCENT)}
${estimateCell(detector.flag_rate, PERCENT)}${estimateCell(detector.false_positive_rate, PERCENT)}
${hasDelays && numberCell(median(detector.delays), PLAIN)}
${hasSeeds && html`<td class="number">${detector.auroc_by_seed.map(UNIT.value).join(" ")}</td>`}
${textCell(shortRule(detector.rule))}</tr>
`,
  );
  return table("Detectors", columns, rows);
}

function rocFigures(detectors: readonly DetectorResult[], benign: number): Markup | null {
  const curves = detectors
    .map(({ name, roc }, i) => ({ name, roc, style: lineStyle(i) }))
    .filter(({ roc }) => roc.length > 0);
  if (curves.length === 0) return null;
  const names = curves.map(({ name }) => name).join(", ");
  const scales = { x: "False-positive rate", y: "True-positive rate" };
  // The flag last, so that it lies on top.
  const ordered = curves.toReversed();

  const whole = chart(`ROC curves of ${names}`, {
    height: 380,
    x: { ...SHARE_SCALE, label: scales.x },
    y: { ...SHARE_SCALE, label: scales.y, grid: true },
    marks: [
      Plot.line(
        [
          [0, 0],
          [1, 1],
        ],
        { stroke: "currentColor", strokeOpacity: 0.35, strokeWidth: 1 },
      ),
      ...ordered.map(({ roc, style }) => Plot.line(corners(roc), { ...style })),
    ],
  });
  const resolved = 1 / benign;
  const lowEnd = chart(`ROC curves of ${names} at low false-positive rates, on a logarithmic scale`, {
    height: 380,
    x: { type: "log", domain: [LOWEST_RATE, 1], label: scales.x, tickFormat: "~%", ticks: 4 },
    y: { ...SHARE_SCALE, label: scales.y, grid: true },
    marks: [
      resolved > LOWEST_RATE
        ? Plot.rectX([0], {
            x1: LOWEST_RATE,
            x2: Math.min(1, resolved),
            fill: "currentColor",
            fillOpacity: 0.07,
          })
        : null,
      Plot.ruleX([LOWEST_RATE, 0.01], { strokeOpacity: 0.35 }),
      // A threshold lets a rate through or not: between two points the lower true-positive rate holds.
      ...ordered.map(({ roc, style }) => Plot.line(lowPart(roc), { ...style, curve: "step-after" })),
    ],
  });
  const key = legend(curves.map(({ name, style }) => ({ name, swatch: lineSwatch(style) })));
  const shade =
    resolved > LOWEST_RATE &&
    ` Shaded: rates below 1 in ${benign}, which that many benign examples cannot tell from zero.`;
  return html`${key}
<div class="figures">
${figure("ROC: the share of harmful conversations found for each share of benign ones reported.", whole)}
${figure(["The same at its low end, where a guard has to work.", shade], lowEnd)}
</div>`;
}

type Point = readonly [number, number];

/** A curve without the points inside its straight level and upright runs: the same line, shorter. */
function corners(roc: readonly Point[]): Point[] {
  return roc.filter(([x, y], i) => {
    const [before, after] = [roc[i - 1], roc[i + 1]];
    if (!before || !after) return true;
    const isUpright = before[0] === x && after[0] === x;
    const isLevel = before[1] === y && after[1] === y;
    return !isUpright && !isLevel;
  });
}

/** The part of a curve from the lowest rate on, begun with what it has reached there. */
function lowPart(roc: readonly Point[]): Point[] {
  const reached = roc.filter(([x]) => x <= LOWEST_RATE).at(-1)?.[1] ?? 0;
  return corners([[LOWEST_RATE, reached], ...roc.filter(([x]) => x > LOWEST_RATE)]);
}
