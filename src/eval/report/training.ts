import * as Plot from "@observablehq/plot";
import type { Evaluation, TrainingCurve } from "../evaluation.js";
import { mean } from "../metrics.js";
import { chart, figure, legend, lineStyle, lineSwatch } from "./chart.js";
import { html, type Markup } from "./html.js";

/** Most points of a curve: more lie closer than a pixel, and hide the course in their noise. */
const POINTS = 150;

/** Terms that have a name in the paper's words. */
const TERMS: Readonly<Record<string, string>> = {
  loss: "Loss, weighted sum",
  ce: "Cross-entropy of the flag",
  post: "KL after the flag",
  benign: "KL on benign conversations",
};

/** The loss and its terms over the steps of each training. */
export function trainingSection({ training }: Evaluation): Markup | null {
  const curves = training
    .filter(({ steps }) => steps.length > 0)
    .map((curve, i) => ({ curve, style: lineStyle(i) }));
  if (curves.length === 0) return null;
  const terms = new Set(["loss", ...curves.flatMap(({ curve }) => Object.keys(curve.steps[0]?.terms ?? {}))]);
  const bin = Math.max(...curves.map(({ curve }) => binOf(curve)));
  const figures = [...terms].map((term) => {
    const name = TERMS[term] ?? term;
    const drawn = chart(`${name} over the steps of training`, {
      height: 210,
      x: { label: "Step" },
      y: { label: "nats", grid: true, zero: true },
      marks: curves.map(({ curve, style }) =>
        Plot.line(binned(curve, term), { x: "step", y: "value", ...style }),
      ),
    });
    return figure(name, drawn);
  });
  return html`${
    curves.length > 1 &&
    legend(curves.map(({ curve, style }) => ({ name: curve.adapter, swatch: lineSwatch(style) })))
  }
<div class="figures">${figures}</div>
${bin > 1 && html`<p class="note">Each point is the mean of up to ${bin} steps.</p>`}`;
}

function binOf({ steps }: TrainingCurve): number {
  return Math.ceil(steps.length / POINTS);
}

/** A term's means over bins of steps, each at the bin's middle. */
function binned(curve: TrainingCurve, term: string): { step: number; value: number }[] {
  const size = binOf(curve);
  return Array.from({ length: Math.ceil(curve.steps.length / size) }, (_, i) => {
    const steps = curve.steps.slice(i * size, (i + 1) * size);
    return {
      step: mean(steps.map(({ step }) => step)),
      value: mean(steps.map(({ loss, terms }) => (term === "loss" ? loss : (terms[term] ?? Number.NaN)))),
    };
  });
}
