import * as Plot from "@observablehq/plot";
import type { AlongResult, Evaluation } from "../evaluation.js";
import { BENIGN_LINE, chart, figure, HARMFUL_LINE, legend, lineSwatch, SHARE_SCALE } from "./chart.js";
import { counted, median, PLAIN } from "./format.js";
import { html, type Markup } from "./html.js";

/** Most bars of the histogram. */
const BARS = 30;

/** Where in a response the flag is raised: P(flag) along it, and the delay after the onset. */
export function courseSection({ along, detectors }: Evaluation): Markup | null {
  const figures = [alongFigure(along), delayFigure(detectors[0]?.delays ?? [])].filter(
    (found) => found !== null,
  );
  return figures.length > 0 ? html`<div class="figures">${figures}</div>` : null;
}

function alongFigure(along: readonly AlongResult[]): Markup | null {
  const sides = (
    [
      ["harmful", HARMFUL_LINE],
      ["benign", BENIGN_LINE],
    ] as const
  )
    .map(([name, style]) => ({
      name,
      style,
      bands: along.flatMap(({ position, [name]: band }) => (band ? [{ position, ...band }] : [])),
    }))
    .filter(({ bands }) => bands.length > 0);
  if (sides.length === 0) return null;
  const drawn = chart("P(flag) along harmful and benign responses: mean and band", {
    x: { label: "Position in the response, tokens" },
    y: { ...SHARE_SCALE, label: "P(flag)", tickFormat: "", grid: true },
    marks: [
      ...sides.map(({ bands, style }) =>
        Plot.areaY(bands, { x: "position", y1: "low", y2: "high", fill: style.stroke, fillOpacity: 0.16 }),
      ),
      ...sides.map(({ bands, style }) => Plot.line(bands, { x: "position", y: "mean", ...style })),
    ],
  });
  const key = legend(
    sides.map(({ name, style, bands }) => ({
      name: `${name}, n = ${bands[0]?.count ?? 0}`,
      swatch: lineSwatch(style),
    })),
  );
  return figure(
    `P(flag) before each token of the response: the mean over the responses that reach it (line), their tenth to \
ninetieth percentile (band).`,
    key,
    drawn,
  );
}

function delayFigure(delays: readonly number[]): Markup | null {
  const middle = median(delays);
  if (middle === null) return null;
  const [least, most] = [Math.min(...delays), Math.max(...delays)];
  const width = Math.ceil((most - least + 1) / BARS);
  // A bar spans the whole numbers that it counts, each from half below it to half above.
  const bins = Array.from({ length: Math.ceil((most - least + 1) / width) }, (_, i) => {
    const from = least + i * width - 0.5;
    const count = delays.filter((delay) => delay > from && delay < from + width).length;
    return { from, to: from + width, count };
  });
  const isLate = middle > (least + most) / 2;
  const drawn = chart("Histogram of the tokens from the onset of harm to the first flag", {
    x: { label: "Tokens from the onset to the first flag" },
    y: { label: "Conversations", grid: true, tickFormat: "d" },
    marks: [
      Plot.rectY(bins, { x1: "from", x2: "to", y: "count", fill: "var(--flag)", inset: 0.5 }),
      Plot.ruleY([0]),
      Plot.ruleX([middle], { strokeDasharray: "3 3" }),
      Plot.text([`median ${PLAIN.value(middle)}`], {
        x: [middle],
        frameAnchor: "top",
        textAnchor: isLate ? "end" : "start",
        dx: isLate ? -5 : 5,
        ...{ stroke: "var(--page)", fill: "currentColor", strokeWidth: 4 },
      }),
    ],
  });
  const early = delays.filter((delay) => delay < 0).length;
  return figure(
    [
      `Detection delay of the red flag on ${counted(delays.length, "flagged conversation")} with a known onset.`,
      early > 0 && ` Below zero the flag came before the harm was evident: ${early} times.`,
    ],
    drawn,
  );
}
