import type { Evaluation } from "../evaluation.js";
import { numberCell, numberColumn, PLAIN, table, textCell, textColumn } from "./format.js";
import { type Content, html, type Markup } from "./html.js";

/** What the files of examples held, and what became of it. */
export function dataSection({ data }: Evaluation): Markup {
  const count = (value: number) => numberCell(value, PLAIN);
  const rows = Object.entries(data).map(
    ([kind, { path, examples, generated, left_out: leftOut }]) => html`<tr><th scope="row">${kind}</th>
${textCell(html`<code>${path}</code>`)}${count(examples)}${count(generated)}${count(leftOut)}</tr>
`,
  );
  const numbers = ["Examples", "Responses generated", "Left out"].map(numberColumn);
  return html`${table("Data", [textColumn("Class"), textColumn("File"), ...numbers], rows)}
<p class="note">Left out: what does not fit into the model's context, has no prompt, or becomes harmful only past the
cut response.</p>`;
}

/** All that is needed to make the figures again. */
export function runSection({ run }: Evaluation): Markup {
  const facts: readonly (readonly [string, Content])[] = [
    ["Model", html`<code>${run.model}</code>`],
    ["Adapters", run.adapters.length > 0 && run.adapters.map((path) => html`<code>${path}</code> `)],
    ["Decision", run.decision !== "" && html`<code>${run.decision}</code>`],
    ["Seed", run.seed],
    ["Bootstrap resamples", run.resamples > 0 && run.resamples],
    ["Backend", run.backend],
    [
      "Versions",
      Object.entries(run.versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(", "),
    ],
    ["Date", html`<time datetime="${run.date}">${run.date}</time>`],
  ];
  const known = facts.filter(([, value]) => value !== false);
  // Each in a box, so that a line breaks between words and not at their hyphens.
  const command = run.command.map((word, i) => [i > 0 && " ", html`<span>${shellWord(word)}</span>`]);
  return html`<pre class="command" tabindex="0" aria-label="Command line"><code>${command}</code></pre>
<dl class="facts">
${known.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>\n`)}</dl>`;
}

/** A word as a POSIX shell reads it back. */
function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
