import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { parseHTML } from "linkedom";
import { describe, expect, it } from "vitest";
import type { DetectorResult, Evaluation } from "../../src/eval/evaluation.js";
import { html } from "../../src/eval/report/html.js";
import { renderReport } from "../../src/eval/report.js";
import { hostileEvaluation, PAYLOAD, syntheticEvaluation, syntheticSweep } from "./report-fixture.js";

const parse = (evaluation: Evaluation) => parseHTML(renderReport(evaluation)).document;
type Page = ReturnType<typeof parse>;

const sectionsOf = (page: Page) => [...page.querySelectorAll("main > section[id]")].map(({ id }) => id);
const textOf = (page: Page, selector: string) =>
  [...page.querySelectorAll(selector)].map(({ textContent }) => textContent?.replace(/\s+/g, " ").trim());

const everything = syntheticEvaluation();
const ALL = [
  ...["detectors", "course", "groups", "attacks", "utility", "training", "sweep", "examples", "data", "run"],
];

describe("a report", () => {
  it("has a section for all that was measured", () => {
    const page = parse(everything);
    expect(sectionsOf(page)).toEqual(ALL);
    expect(textOf(page, "nav a")).toEqual(textOf(page, "main h2"));
    for (const link of page.querySelectorAll("nav a")) {
      expect(page.querySelector(link.getAttribute("href") ?? "")).not.toBeNull();
    }
  });

  it.each<[string[], Partial<Evaluation>]>([
    [["course"], { along: [], detectors: everything.detectors.map((found) => ({ ...found, delays: [] })) }],
    [["groups"], { groups: [] }],
    [["attacks"], { attacks: [] }],
    [["utility"], { utility: null }],
    [["training"], { training: [] }],
    [["training"], { training: [{ adapter: "a", steps: [] }] }],
    [["sweep"], { sweep: null }],
    [["sweep"], { sweep: { parameters: ["ce"], points: [], failed: [] } }],
    [["examples"], { examples: [] }],
    [["detectors"], { detectors: [] }],
  ])("leaves out %s where there is nothing to show", (missing, change) => {
    const page = parse({ ...everything, ...change });
    expect(sectionsOf(page)).toEqual(ALL.filter((id) => !missing.includes(id)));
  });

  it("of a sweep alone has no more than it", () => {
    const page = parse(syntheticSweep());
    expect(sectionsOf(page)).toEqual(["sweep", "data", "run"]);
    expect(page.querySelector(".headline")).toBeNull();
    expect(textOf(page, "h1")).toEqual(["Red flag sweep"]);
    expect(page.querySelector("main")?.textContent).toContain("step 41, batch 1: ce is NaN");
  });

  it("gives the headline figures with their intervals", () => {
    const [flag] = everything.detectors;
    if (!flag) throw new Error("no detector");
    const known: DetectorResult = {
      ...flag,
      auroc: { value: 0.9876, low: 0.9712, high: 0.9961 },
      tpr_at_1_percent_fpr: { value: 0.914, low: 0.8, high: 0.95 },
      false_positive_rate: { value: 0.0125, low: 0, high: 0.03 },
    };
    const page = parse({ ...everything, detectors: [known, ...everything.detectors.slice(1)] });
    expect(textOf(page, ".headline strong")).toEqual(["0.988", "91.4 %", "1.3 %", "0.0291"]);
    expect(textOf(page, ".headline .interval")).toEqual([
      "0.971 to 0.996",
      "80.0 to 95.0",
      "0.0 to 3.0",
      "0.0251 to 0.0331",
    ]);
    expect(page.querySelector(".headline .note")?.textContent).toContain("1000 bootstrap resamples");
  });

  it("lists detectors in their order, with n/a for what the data cannot give", () => {
    const page = parse(everything);
    expect(textOf(page, "#detectors tbody th")).toEqual(everything.detectors.map(({ name }) => name));
    const refusal = page.querySelectorAll("#detectors tbody tr")[4];
    expect([...(refusal?.querySelectorAll("td") ?? [])].slice(0, 4).map((cell) => cell.textContent)).toEqual(
      Array(4).fill("n/a"),
    );
  });

  it("maps every token, and marks onset and flag where they are", () => {
    const page = parse(everything);
    const maps = [...page.querySelectorAll(".tokens")];
    expect(maps).toHaveLength(everything.examples.length);
    for (const [i, map] of maps.entries()) {
      const { tokens, last, onset, first } = everything.examples[i] ?? everything.examples[0] ?? never();
      const spans = [...map.querySelectorAll("span")];
      expect(spans.slice(0, -1).map(({ textContent }) => textContent)).toEqual(
        tokens.map(({ text }) => text),
      );
      expect(spans.map((span) => span.getAttribute("title"))).toEqual(
        [...tokens.map(({ probability }) => probability), last].map((p) => `P(flag) ${p.toFixed(3)}`),
      );
      const children = [...map.children];
      const spansBefore = (selector: string) => {
        const mark = map.querySelector(selector);
        return (
          mark && children.slice(0, children.indexOf(mark)).filter(({ localName }) => localName === "span")
        );
      };
      expect(spansBefore(".mark:not(.flag)")?.length ?? null).toBe(onset);
      expect(spansBefore(".mark.flag")?.length ?? null).toBe(first);
      // In grey, and to who cannot see red: an underline from 0.1 on.
      for (const [j, { probability }] of tokens.entries()) {
        const level =
          probability < 0.1 ? "" : probability < 0.5 ? "hint" : probability < 0.9 ? "likely" : "high";
        expect(spans[j]?.className).toBe(level);
      }
    }
  });

  it("says the command line so that a shell reads it back", () => {
    const run = { ...everything.run, command: ["oriflamme", "eval", "--out", "it's here", ""] };
    const page = parse({ ...everything, run });
    expect(textOf(page, "pre")).toEqual(["oriflamme eval --out 'it'\\''s here' ''"]);
  });

  it("can be read by ear: charts have names, columns and rows scopes, headings an order", () => {
    const page = parse(everything);
    const charts = [...page.querySelectorAll("svg.chart")];
    expect(charts.length).toBeGreaterThan(20);
    for (const chart of charts) {
      expect(chart.getAttribute("role")).toBe("img");
      expect(chart.getAttribute("aria-label")).toMatch(/\w{3}/);
    }
    for (const svg of page.querySelectorAll("svg:not(.chart)")) {
      expect(svg.getAttribute("aria-hidden")).toBe("true");
    }
    for (const cell of page.querySelectorAll("th")) expect(cell.getAttribute("scope")).toMatch(/^(col|row)/);
    const levels = [...page.querySelectorAll("h1, h2, h3")].map(({ localName }) => Number(localName[1]));
    levels.forEach((level, i) => {
      expect(level - (levels[i - 1] ?? 0)).toBeLessThanOrEqual(1);
    });
    const ids = [...page.querySelectorAll("[id]")].map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("is the same text for the same evaluation", () => {
    expect(renderReport(everything)).toBe(renderReport(everything));
  });

  it("holds all that it shows", () => {
    const text = renderReport(everything);
    expect(text).not.toMatch(
      /<(script|iframe|object|embed|base|form)\b|@import|url\(|https?:(?!\/\/www\.w3\.org\/)/,
    );
    expect([...text.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, url]) => url?.slice(0, 1))).toEqual(
      ["d", ...ALL].map((_, i) => (i === 0 ? "d" : "#")),
    );
  });
});

function never(): never {
  throw new Error("unreachable");
}

describe("numbers at their edges", () => {
  const [flag] = everything.detectors;
  const bare: DetectorResult = {
    ...{
      name: "flag",
      rule: "threshold=0.5",
      delays: [4],
      roc: [
        [0, 0],
        [1, 1],
      ],
      auroc_by_seed: [],
    },
    ...{ auroc: null, average_precision: null, tpr_at_1_percent_fpr: null, tpr_at_01_percent_fpr: null },
    ...{ flag_rate: null, false_positive_rate: null },
  };
  const point = { mean: 0, low: 0, high: 0, count: 1 };
  const nothing = { value: 0, low: 0, high: 0 };
  const sweepPoint = { auroc: 0.5, tpr_at_1_percent_fpr: 0, kl_per_token: 0, perplexity_ratio: 1 };

  it.each<[string, Partial<Evaluation>]>([
    ["nothing known of a detector", { detectors: [bare] }],
    [
      "no benign example",
      { detectors: [bare], data: { ...everything.data, benign: { ...everything.data.benign, examples: 0 } } },
    ],
    ["one position", { along: [{ position: 0, harmful: point, benign: null }] }],
    ["delays far apart", { detectors: [{ ...bare, delays: [-3, 100_000] }] }],
    [
      "one level",
      {
        attacks: [
          {
            attack: "a",
            options: {},
            examples: 1,
            levels: [{ label: "", flag_rate: nothing, success: null, evaded: null }],
          },
        ],
      },
    ],
    ["one step", { training: [{ adapter: "a", steps: [{ step: 1, loss: 0, terms: {} }] }] }],
    [
      "many adapters",
      {
        training: Array.from({ length: 40 }, (_, i) => ({
          adapter: `${i}`,
          steps: [{ step: 1, loss: 1, terms: { ce: 1 } }],
        })),
      },
    ],
    [
      "one point, of no divergence",
      { sweep: { parameters: ["ce"], points: [{ values: [1], seed: 0, ...sweepPoint }], failed: [] } },
    ],
    [
      "a sweep that only diverged",
      {
        sweep: {
          parameters: ["ce"],
          points: [],
          failed: [{ values: [1], seed: 0, reason: "step 1: ce is NaN" }],
        },
      },
    ],
    [
      "a response of no token",
      { examples: [{ prompt: "", harmful: false, tokens: [], last: 0, onset: 0, first: 0 }] },
    ],
    [
      "a token of no text",
      {
        examples: [
          {
            prompt: "",
            harmful: true,
            tokens: [{ text: "", probability: 1 }],
            last: 1,
            onset: null,
            first: 1,
          },
        ],
      },
    ],
  ])("%s", (_, change) => {
    const text = renderReport({ ...everything, ...change, sweep: change.sweep ?? null });
    // "ce is NaN" is a diverged point's reason, in the words of the training.
    expect(text.replaceAll("ce is NaN", "")).not.toMatch(/NaN|undefined|Infinity|\[object|>null</);
  });

  it("keeps the corners of a curve", () => {
    if (!flag) return;
    const stairs = [
      [0, 0],
      [0, 0.5],
      [0, 1],
      [0.5, 1],
      [1, 1],
    ] as const;
    const drawn = (roc: DetectorResult["roc"]) => {
      const page = parse({ ...everything, detectors: [{ ...flag, roc }] });
      return page
        .querySelector(
          "#detectors svg.chart path[stroke='var(--flag)'], #detectors svg.chart g[stroke='var(--flag)'] path",
        )
        ?.getAttribute("d");
    };
    const path = drawn(stairs);
    expect(path).toMatch(/^M[\d.,L]+$/);
    expect(path?.split("L")).toHaveLength(3);
    expect(
      drawn([
        [0, 0],
        [0, 1],
        [1, 1],
      ]),
    ).toBe(path);
  });
});

describe("text from data", () => {
  it("comes out of a template as it went in", () => {
    const { document } = parseHTML("<html><body></body></html>");
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        // What a parser does not keep of any text, however it is written.
        fc.pre(!/[\0\r]/.test(text));
        document.body.innerHTML = html`<p title="${text}">${text}</p>`.text;
        const paragraph = document.querySelector("p");
        expect(paragraph?.textContent).toBe(text);
        expect(paragraph?.getAttribute("title")).toBe(text);
        expect(document.querySelectorAll("body *")).toHaveLength(1);
      }),
    );
  });

  it("cannot become an element or an attribute, wherever it stands", () => {
    const page = parse(hostileEvaluation());
    expect(page.querySelectorAll("script, img, iframe, b.injected")).toHaveLength(0);
    const names = [...page.querySelectorAll("*")].flatMap((element) => element.getAttributeNames());
    expect(
      [...new Set(names)].filter((name) => !/^[a-z][a-zA-Z-]*\d?$/.test(name) || name.startsWith("on")),
    ).toEqual([]);
    // All but these show text of the data.
    for (const id of ALL.filter((id) => id !== "course" && id !== "utility"))
      expect(page.querySelector(`#${id}`)?.textContent, id).toContain(PAYLOAD.slice(0, 8));
    expect(page.querySelector("title")?.textContent).toContain(PAYLOAD);
  });
});

describe("the package", () => {
  /** What a built file imports from other packages, by itself or through files of ours. */
  async function packagesOf(entry: string): Promise<Set<string>> {
    const packages = new Set<string>();
    const seen = new Set<string>();
    const visit = async (file: URL): Promise<void> => {
      if (seen.has(file.href)) return;
      seen.add(file.href);
      const text = await readFile(file, "utf8");
      for (const [, name = ""] of text.matchAll(/(?:\bfrom|\bimport|\bimport\()\s*"([^"\n]+)"/g)) {
        if (name.startsWith(".")) await visit(new URL(name, file));
        else packages.add(name);
      }
    };
    await visit(new URL(`../../dist/${entry}`, import.meta.url));
    return packages;
  }

  it("brings charts to who renders a report, not to who imports the library", async () => {
    const charts = ["@observablehq/plot", "linkedom"];
    expect([...(await packagesOf("eval/report.js"))]).toEqual(expect.arrayContaining(charts));
    const library = await packagesOf("index.js");
    expect([...library].filter((name) => !name.startsWith("node:")).sort()).toEqual([
      "@huggingface/jinja",
      "@huggingface/tokenizers",
      "jsonc-parser",
      "webgpu",
    ]);
  });
});
