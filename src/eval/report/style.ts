/**
 * The page's rules. Fonts are the system's. The dark palette is for screens only, so that paper is always light. A
 * chart is as wide as its column; only tables, which cannot shrink, scroll, each in its own box.
 */
export const STYLE = `
:root {
  color-scheme: light;
  --page: #fffdfb; --ink: #1d1b1a; --soft: #635d59; --rule: #e4ddd7; --panel: #f7f2ed;
  --flag: #c01f2e; --benign: #1b66a8;
  --line-1: #1b66a8; --line-2: #8a5a00; --line-3: #0b7a6b; --line-4: #7044b5; --line-5: #55606b; --line-6: #a8327f;
  --prose: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif;
  --plain: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
  --code: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --page: #161413; --ink: #ece7e2; --soft: #a8a09a; --rule: #39332f; --panel: #211d1b;
    --flag: #ff6b70; --benign: #6cb2f2;
    --line-1: #6cb2f2; --line-2: #e0a93f; --line-3: #4fc7b4; --line-4: #b896f5; --line-5: #a9b4bf; --line-6: #f07fc6;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3rem) 5rem; max-width: 74rem;
  background: var(--page); color: var(--ink); font: 1.0625rem/1.55 var(--prose);
  overflow-wrap: break-word;
}
h1, h2, h3 { line-height: 1.2; text-wrap: balance; font-weight: 600; }
h1 { margin: 0; font-size: clamp(1.9rem, 5vw, 2.75rem); letter-spacing: -0.015em; }
h2 { margin: 0 0 1.25rem; font-size: 1.5rem; letter-spacing: -0.01em; }
h3 { margin: 2rem 0 0.5rem; font-size: 1.1rem; }
code, pre { font: 0.86em/1.5 var(--code); }
code { overflow-wrap: anywhere; }
a { color: inherit; text-decoration-color: var(--flag); text-underline-offset: 0.2em; }
:focus-visible { outline: 2px solid var(--flag); outline-offset: 2px; }
small, .note, figcaption, .legend, .kicker, nav, .interval, .who { font-family: var(--plain); }
.kicker { margin: 0 0 0.25rem; color: var(--flag); font-size: 0.85rem; font-weight: 600; letter-spacing: 0.08em; }
.subject { margin: 0.5rem 0 0; color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; margin: 1.25rem 0 0; padding: 0; list-style: none; }
nav { font-size: 0.875rem; }
main > section { margin-top: 2.5rem; padding-top: 1.5rem; border-top: 1px solid var(--rule); }
main > .headline { margin-top: 1.75rem; padding-top: 0; border-top: 0; }
.note { max-width: 46rem; margin: 0.75rem 0; color: var(--soft); font-size: 0.875rem; }

.headline dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1px; margin: 0;
  background: var(--rule); border: 1px solid var(--rule); }
.headline dl > div { padding: 1rem 1.1rem; background: var(--page); }
.headline dt { color: var(--soft); font: 600 0.8125rem/1.3 var(--plain); }
.headline dd { margin: 0.3rem 0 0; }
.headline strong { display: block; font-size: 2rem; font-weight: 600; line-height: 1.15; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums lining-nums; }
.headline .interval { display: block; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
.headline small { display: block; margin-top: 0.15rem; color: var(--soft); font-size: 0.8125rem; line-height: 1.35; }

.scroll { margin: 1rem 0; overflow-x: auto; }
table { min-width: min(100%, 40rem); border-collapse: collapse; font: 0.875rem/1.35 var(--plain);
  font-variant-numeric: tabular-nums lining-nums; }
th, td { padding: 0.5rem 0.75rem; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--rule); }
th:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--soft); font-size: 0.8125rem; font-weight: 600; vertical-align: bottom;
  border-bottom: 2px solid var(--ink); }
tbody th { font-weight: 500; min-width: 7rem; }
td code { white-space: nowrap; }
tr.own th, tr.own td { font-weight: 650; }
tr.own small { font-weight: 400; }
.number { text-align: right; }
td small { display: block; color: var(--soft); font-size: 0.75rem; white-space: nowrap; }
.none { color: var(--soft); }

.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem 3rem; }
.figures.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 14.5rem), 1fr)); gap: 1rem 2rem; }
figure { min-width: 0; max-width: 36rem; margin: 0; }
.small figure { max-width: 20rem; }
figcaption { margin-top: 0.35rem; color: var(--soft); font-size: 0.875rem; line-height: 1.45; }
figcaption strong { color: var(--ink); }
.chart { display: block; width: 100%; height: auto; overflow: visible; font: 12px var(--plain);
  font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0 0 0.75rem; padding: 0; list-style: none;
  font-size: 0.875rem; }
.swatch { vertical-align: -0.1em; }

.example { margin: 0 0 2.5rem; }
.prompt { max-width: 46rem; margin: 0.25rem 0 0.75rem; color: var(--soft); white-space: pre-wrap; }
.who { font-size: 0.8125rem; font-weight: 600; }
.example .chart { max-width: 36rem; }
.tokens { max-width: 46rem; margin: 0.75rem 0; font-size: 1rem; line-height: 1.9; white-space: pre-wrap; }
.tokens span { padding: 0.1em 0; background: color-mix(in srgb, var(--flag) calc(0.55 * var(--p, 0%)), transparent);
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.hint, .likely, .high { text-decoration: underline var(--ink); text-decoration-thickness: 1px;
  text-underline-offset: 0.3em; }
.hint { text-decoration-style: dotted; }
.likely { text-decoration-style: dashed; }
.high { text-decoration-thickness: 2px; }
.mark { font-family: var(--plain); }
.mark.flag { color: var(--flag); }

.command { margin: 0; padding: 0.9rem 1.1rem; background: var(--panel); white-space: pre-wrap;
  overflow-wrap: anywhere; }
.command span { display: inline-block; max-width: 100%; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: 0.9rem 2rem;
  margin: 1.25rem 0 0; }
.facts dt { color: var(--soft); font: 600 0.8125rem/1.3 var(--plain); }
.facts dd { margin: 0.1rem 0 0; }

@media print {
  @page { margin: 16mm 14mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  main > section { margin-top: 1.25rem; padding-top: 1rem; }
  h2, h3, .legend, .prompt { break-after: avoid; }
  figure, tr, .headline, .command, .facts > div { break-inside: avoid; }
  .tokens { orphans: 3; widows: 3; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.3rem 0.35rem; }
  thead th { font-size: 7.5pt; }
  td small { font-size: 6.5pt; }
  tbody th { min-width: 0; }
  td code { white-space: normal; }
  .figures { grid-template-columns: 1fr 1fr; gap: 1rem 1.5rem; }
  .figures.small { grid-template-columns: repeat(4, 1fr); gap: 1rem; }
}
`;
