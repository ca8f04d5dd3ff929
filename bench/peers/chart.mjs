// Draws lines of `oriflamme bench --json` as an SVG that reads on light and on dark pages. Lines of several runs may
// stand behind one another.
//
//   node bench/peers/chart.mjs < lines.jsonl > FILE.svg

import { readFileSync } from "node:fs";
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

/** Contenders from the top on, and their colours: ours the reds of the flag. */
const COLOURS = {
  "oriflamme, revectorized": "#d92d3a",
  "oriflamme, portable": "#f08088",
  "onnxruntime-web": "#3b82d6",
  "tfjs-wasm": "#d99a1c",
  "jax-js": "#8f6fe0",
  "onnxruntime-node": "#1f9e8f",
  "llama.cpp": "#6b9e3a",
  pytorch: "#8a8f98",
};

/** Suites of the left and the right column. */
const COLUMNS = [["matmul"], ["attention", "train", "decode"]];
const WIDTH = 470;
const BAR = 10;
const MARGIN = { top: 22, right: 50, bottom: 6, left: 170 };
const GAP = 8;
const LEGEND_ROW = 18;

const STYLE = `svg { color: #24292f; font: 11px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { color: #d8dee6 } }`;

const nameOf = ({ who, variant }) => (variant ? `${who}, ${variant}` : who);
const suiteOf = ({ bench }) => bench.match(/^[a-z]+/)[0];
const caseOf = ({ bench, dtype, shape }) => {
  if (bench === "train") return `step: dim ${shape[0]}, ${shape[1]} layers`;
  if (bench === "decode") return `15M Llama, ${dtype}`;
  return `${bench.replace("attention+backward", "with backward")} ${shape.join("×")}`;
};

/** The bars of a suite, each as long as its share of the fastest of its case. */
function bars(lines) {
  const best = new Map();
  for (const line of lines) best.set(caseOf(line), Math.max(best.get(caseOf(line)) ?? 0, line.rate));
  return lines.map((line) => ({
    case: caseOf(line),
    name: nameOf(line),
    share: line.rate / best.get(caseOf(line)),
    label: `${Number(line.rate.toPrecision(3))}`,
  }));
}

/** A suite as an <svg>, and its height. */
function panel(document, suite, lines) {
  const data = bars(lines);
  const names = Object.keys(COLOURS).filter((name) => data.some((bar) => bar.name === name));
  const cases = [...new Set(data.map((bar) => bar.case))];
  const height = MARGIN.top + MARGIN.bottom + cases.length * (names.length * BAR + GAP);
  const svg = Plot.plot({
    document,
    width: WIDTH,
    height,
    marginTop: MARGIN.top,
    marginRight: MARGIN.right,
    marginBottom: MARGIN.bottom,
    marginLeft: MARGIN.left,
    x: { axis: null, domain: [0, 1] },
    y: { axis: null, domain: names, padding: 0.1 },
    fy: { label: null, domain: cases, padding: GAP / (names.length * BAR + GAP) },
    color: { domain: Object.keys(COLOURS), range: Object.values(COLOURS) },
    marks: [
      Plot.barX(data, { x: "share", y: "name", fy: "case", fill: "name" }),
      Plot.text(data, { x: "share", y: "name", fy: "case", text: "label", textAnchor: "start", dx: 4 }),
      Plot.axisFy({ anchor: "left", textAnchor: "end", frameAnchor: "left", dx: -6, label: null }),
      Plot.text([`${suite}, ${lines[0].unit}, ${threadsOf(lines[0])}`], {
        ...{ frameAnchor: "top-left", fy: () => cases[0], dy: -18, dx: 10 - MARGIN.left, fontWeight: "bold" },
      }),
    ],
  });
  return { svg, height };
}

function threadsOf({ threads }) {
  return threads === 1 ? "1 thread" : `${threads} threads`;
}

/** The chart of measurements, as the text of an SVG file. */
export function chart(lines) {
  const { document } = parseHTML("<html><body></body></html>");
  const shown = lines.filter(({ who }) => who !== "limit");
  if (shown.length === 0) throw new Error("there is no measurement to draw");
  const threadCounts = [...new Set(shown.map(({ threads }) => threads))].sort((a, b) => a - b);
  const used = Object.keys(COLOURS).filter((name) => shown.some((line) => nameOf(line) === name));
  const parts = [legend(used)];
  const top = Math.ceil(used.length / 4) * LEGEND_ROW + 8;
  let bottom = top;
  for (const [column, suites] of COLUMNS.entries()) {
    let y = top;
    for (const suite of suites) {
      for (const threads of threadCounts) {
        const own = shown.filter((line) => suiteOf(line) === suite && line.threads === threads);
        if (own.length === 0) continue;
        const { svg, height } = panel(document, suite, own);
        // Plot's own style fits its size to a page, which a part of a picture must not do.
        svg.querySelector("style")?.remove();
        const attributes = `transform="translate(${column * WIDTH}, ${y})" text-anchor="middle"`;
        parts.push(`<g ${attributes} font-size="10" fill="currentColor">${svg.innerHTML}</g>`);
        y += height + 10;
      }
    }
    bottom = Math.max(bottom, y);
  }
  const size = `viewBox="0 0 ${2 * WIDTH} ${bottom}" width="${2 * WIDTH}" height="${bottom}"`;
  const label = 'role="img" aria-label="Rates of oriflamme and its competitors, longer is faster"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${label}>\n<style>${STYLE}</style>\n${parts.join("\n")}\n</svg>\n`;
}

function legend(names) {
  const entries = names.map((name, i) => {
    const [x, y] = [10 + (i % 4) * 230, Math.floor(i / 4) * LEGEND_ROW + 6];
    return `<rect x="${x}" y="${y}" width="10" height="10" fill="${COLOURS[name]}"/><text x="${x + 15}" y="${y + 9}" fill="currentColor">${name}</text>`;
  });
  return entries.join("\n");
}

if (import.meta.main) {
  const lines = readFileSync(0, "utf8")
    .split("\n")
    .filter((line) => line !== "");
  process.stdout.write(chart(lines.map((line) => JSON.parse(line))));
}
