// A package export of its own, `oriflamme/report`: what draws the charts is larger than all else that a page of the
// library would load.

import type { Evaluation } from "./evaluation.js";
import { attackSection } from "./report/attacks.js";
import { courseSection } from "./report/course.js";
import { detectorSection } from "./report/detectors.js";
import { exampleSection } from "./report/examples.js";
import { shortRule } from "./report/format.js";
import { groupSection } from "./report/groups.js";
import { headline } from "./report/headline.js";
import { html, Markup } from "./report/html.js";
import { dataSection, runSection } from "./report/provenance.js";
import { STYLE } from "./report/style.js";
import { sweepSection } from "./report/sweep.js";
import { trainingSection } from "./report/training.js";
import { utilitySection } from "./report/utility.js";

/** Sections in their order: id, heading, and what makes the content, or null where there is nothing to show. */
const SECTIONS: readonly (readonly [string, string, (evaluation: Evaluation) => Markup | null])[] = [
  ["detectors", "Detectors", detectorSection],
  ["course", "Along the response", courseSection],
  ["groups", "Categories and languages", groupSection],
  ["attacks", "Under attack", attackSection],
  ["utility", "Utility", utilitySection],
  ["training", "Training", trainingSection],
  ["sweep", "Sensitivity to hyperparameters", sweepSection],
  ["examples", "Examples", exampleSection],
  ["data", "Data", dataSection],
  ["run", "How to make this again", runSection],
];

/**
 * Nothing may run or load: the page needs neither, and what prompts and responses say must not either. The empty
 * icon keeps a browser from asking a server for one.
 */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/**
 * An evaluation as one self-contained HTML page: text, tables and charts inline, no script, nothing from the
 * network. Sections whose data is null or empty are left out. The same evaluation gives the same text.
 */
export function renderReport(evaluation: Evaluation): string {
  const { run } = evaluation;
  const title = evaluation.detectors.length > 0 ? "Red flag evaluation" : "Red flag sweep";
  const sections = SECTIONS.flatMap(([id, heading, make]) => {
    const content = make(evaluation);
    return content ? [{ id, heading, content }] : [];
  });
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="oriflamme">
<title>${title}: ${run.model}</title>
<link rel="icon" href="data:,">
<style>${new Markup(STYLE)}</style>
</head>
<body>
<header>
<p class="kicker">oriflamme</p>
<h1>${title}</h1>
<p class="subject"><code>${run.model}</code>${
    run.decision !== "" && html`, decision <code>${shortRule(run.decision)}</code>`
  },
<time datetime="${run.date}">${run.date.slice(0, 10)}</time></p>
<nav aria-label="Sections"><ul>${sections.map(
    ({ id, heading }) => html`<li><a href="#${id}">${heading}</a></li>`,
  )}</ul></nav>
</header>
<main>
${headline(evaluation)}
${sections.map(
  ({ id, heading, content }) => html`<section id="${id}" aria-labelledby="${id}-heading">
<h2 id="${id}-heading">${heading}</h2>
${content}
</section>
`,
)}</main>
</body>
</html>
`.text;
}
