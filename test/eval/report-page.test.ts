// The report as a browser shows it. `CHROMIUM` names another binary.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { renderReport } from "../../src/eval/report.js";
import { chromiumMissing, launchChromium } from "../chromium.js";
import { hostileEvaluation, syntheticEvaluation, syntheticSweep } from "./report-fixture.js";

const EVALUATIONS = {
  full: syntheticEvaluation(),
  sweep: syntheticSweep(),
  hostile: hostileEvaluation(),
};
type Name = keyof typeof EVALUATIONS;

describe.skipIf(chromiumMissing("report-page.test.ts"))("the report in Chromium", () => {
  let browser: Browser;
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "oriflamme-report-"));
    browser = await launchChromium();
    for (const [name, evaluation] of Object.entries(EVALUATIONS))
      await writeFile(join(folder, `${name}.html`), renderReport(evaluation));
  });
  afterAll(async () => {
    await browser?.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Opens a report; what it asks for besides itself, and what the browser complains of, is kept. */
  async function open(name: Name, width: number, colorScheme: "light" | "dark" = "light") {
    const page = await browser.newPage({ viewport: { width, height: 800 }, colorScheme });
    const url = pathToFileURL(join(folder, `${name}.html`)).href;
    const requests: string[] = [];
    const complaints: string[] = [];
    page.on("request", (request) => {
      if (request.url() !== url) requests.push(request.url());
    });
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    await page.goto(url);
    return { page, requests, complaints };
  }

  const colourOf = (page: Page, property: "background-color" | "color") =>
    page.evaluate((name) => getComputedStyle(document.body).getPropertyValue(name), property);

  describe.each<[Name, number]>([
    ["full", 1280],
    ["full", 390],
    ["sweep", 390],
    ["hostile", 390],
  ])("%s, %s pixels wide", (name, width) => {
    it("fits, whole, and loads and runs nothing", async () => {
      const { page, requests, complaints } = await open(name, width);
      const found = await page.evaluate(() => ({
        overflow: document.documentElement.scrollWidth - innerWidth,
        cut: [...document.querySelectorAll("svg.chart text, h1, h2, h3, p, li, dd, figcaption")]
          .map((element) => ({ text: element.textContent, box: element.getBoundingClientRect() }))
          .filter(({ box }) => box.width > 0 && (box.left < 0 || box.right > innerWidth + 0.5))
          .map(({ text }) => text),
        title: document.title,
      }));
      expect(found).toEqual({
        overflow: expect.any(Number),
        cut: [],
        title: expect.not.stringMatching(/^broken$/),
      });
      expect(found.overflow).toBeLessThanOrEqual(0);
      expect({ requests, complaints }).toEqual({ requests: [], complaints: [] });
      await page.close();
    });
  });

  it("draws charts in type that a phone's reader can read", async () => {
    const { page } = await open("full", 390);
    const sizes = await page.evaluate(() =>
      [...document.querySelectorAll<SVGSVGElement>("svg.chart")].map(
        (svg) => Number.parseFloat(getComputedStyle(svg).fontSize) * (svg.getScreenCTM()?.a ?? 0),
      ),
    );
    expect(sizes.length).toBeGreaterThan(20);
    // CSS pixels; below 9 small print begins.
    expect(Math.min(...sizes)).toBeGreaterThanOrEqual(9);
    await page.close();
  });

  it("is dark on a dark screen and light on paper", async () => {
    const { page } = await open("full", 1280, "dark");
    const brightness = async (property: "background-color" | "color") =>
      Math.max(...((await colourOf(page, property)).match(/\d+/g) ?? []).map(Number));
    expect(await brightness("background-color")).toBeLessThan(64);
    expect(await brightness("color")).toBeGreaterThan(192);
    await page.emulateMedia({ media: "print", colorScheme: "dark" });
    expect(await brightness("background-color")).toBeGreaterThan(192);
    expect(await brightness("color")).toBeLessThan(64);
    await page.close();
  });

  it("keeps a table's figures and the marks of a heat map readable in both schemes", async () => {
    for (const scheme of ["light", "dark"] as const) {
      const { page } = await open("full", 1280, scheme);
      // WCAG 2.1, 1.4.3: contrast of the text with its background, 4.5 at least.
      const worst = await page.evaluate(() => {
        const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        if (!canvas) return 0;
        /** Relative luminance of colours painted over one another. */
        const luminance = (...colours: string[]) => {
          for (const colour of colours) {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
          }
          const [r = 0, g = 0, b = 0] = [...canvas.getImageData(0, 0, 1, 1).data]
            .map((byte) => byte / 255)
            .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const page = getComputedStyle(document.body).backgroundColor;
        const texts = [
          ...document.querySelectorAll("td, td small, th, figcaption, .note, .tokens span, dt, dd"),
        ];
        return Math.min(
          ...texts.map((element) => {
            const { color, backgroundColor } = getComputedStyle(element);
            const back = luminance(page, backgroundColor);
            const front = luminance(page, backgroundColor, color);
            return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
          }),
        );
      });
      expect(worst, scheme).toBeGreaterThanOrEqual(4.5);
      await page.close();
    }
  });

  it("cuts no figure of the printed pages", async () => {
    const { page } = await open("full", 1280);
    await page.emulateMedia({ media: "print" });
    const breakable = await page.evaluate(() =>
      [...document.querySelectorAll("figure, tr")]
        .filter((element) => getComputedStyle(element).breakInside !== "avoid")
        .map(({ textContent }) => textContent),
    );
    expect(breakable).toEqual([]);
    await page.close();
  });
});
