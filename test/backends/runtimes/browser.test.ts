// The package in headless Chromium: as it ships, and through a bundler. `CHROMIUM` names another binary.

import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { chromiumMissing, launchChromium } from "../../chromium.js";
import { compute } from "./scenario.mjs";
import { type Server, serve } from "./serve.js";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const PAGE = "test/backends/runtimes/page.html";

/** The functions that `page.mjs` gives the page. */
interface PageFunctions {
  start(options: object, expected: number): Promise<{ isUp?: true; error?: string }>;
  finish(): Promise<{ result?: object; error?: string }>;
  readonly warnings: readonly string[];
  computeHere(options: object, expected: number): Promise<object>;
}

/** The same bits everywhere. */
const OPTIONS = { deterministic: true };

describe.skipIf(chromiumMissing("browser.test.ts"))("in Chromium", () => {
  let browser: Browser;
  let inNode: Awaited<ReturnType<typeof compute>>;
  const servers: Server[] = [];
  let page: Page | undefined;

  beforeAll(async () => {
    browser = await launchChromium();
    inNode = await compute({ ...OPTIONS, threads: 1 }, 1);
  });
  afterEach(async () => {
    await page?.close();
    for (const server of servers.splice(0)) server.close();
  });
  afterAll(() => browser?.close());

  /** Opens a page of a folder. @param missing see `serve` */
  async function open(folder: string, path: string, isolated: boolean, missing?: string) {
    const server = await serve(folder, isolated, missing);
    servers.push(server);
    const opened = await browser.newPage();
    page = opened;
    await opened.goto(`${server.url}/${path}`);
    await opened.waitForFunction(() => "computeHere" in globalThis);
    expect(await opened.evaluate(() => crossOriginIsolated)).toBe(isolated);
    return opened;
  }

  /** Runs the scenario in the page's Worker: its result, and how many workers the page had before and after. */
  async function runInWorker(opened: Page, options: object, expected: number, whileUp = async () => {}) {
    const started = await opened.evaluate(
      ([options, expected]) => (globalThis as unknown as PageFunctions).start(options, expected),
      [options, expected] as const,
    );
    expect(started).toEqual({ isUp: true });
    await whileUp();
    const workers = await countWorkers();
    const finished = await opened.evaluate(() => (globalThis as unknown as PageFunctions).finish());
    expect(finished.error).toBeUndefined();
    while ((await countWorkers()) > 1) await new Promise((resolve) => setTimeout(resolve, 5));
    return { ...finished.result, workers };
  }

  /** Dedicated workers that live, nested ones included. */
  async function countWorkers(): Promise<number> {
    const session = await browser.newBrowserCDPSession();
    const { targetInfos } = await session.send("Target.getTargets", { filter: [{ type: "worker" }] });
    await session.detach();
    return targetInfos.length;
  }

  it.each([1, 2, 3])("gives Node's bits on %s threads, and ends them", async (threads) => {
    const opened = await open(ROOT, PAGE, true);
    const result = await runInWorker(opened, { ...OPTIONS, threads }, threads);
    // The engine's own Worker and its threads.
    expect(result).toEqual({ ...inNode, threads, threadsAfter: 1, workers: threads });
  });

  it("runs on one thread where the page is not isolated", async () => {
    const opened = await open(ROOT, PAGE, false);
    const result = await runInWorker(opened, { ...OPTIONS, threads: 2 }, 1);
    expect(result).toEqual({ ...inNode, workers: 1 });
  });

  it.each([true, false])("runs on one thread on the page's own; isolated: %s", async (isolated) => {
    const opened = await open(ROOT, PAGE, isolated);
    const result = await opened.evaluate(
      (options) => (globalThis as unknown as PageFunctions).computeHere(options, 1),
      { ...OPTIONS, threads: 2 },
    );
    expect(result).toEqual(inNode);
  });

  it("does without workers whose script does not load, and says so once", async () => {
    const opened = await open(ROOT, PAGE, true, "/wasm/worker.js");
    const result = await runInWorker(opened, { ...OPTIONS, threads: 3 }, 1, async () => {
      await opened.waitForFunction(() => (globalThis as unknown as PageFunctions).warnings.length > 0);
    });
    expect(result).toMatchObject(inNode);
    const warnings = await opened.evaluate(() => (globalThis as unknown as PageFunctions).warnings);
    expect(warnings).toEqual([expect.stringContaining("a worker thread is missing")]);
  });

  describe("through Vite", () => {
    let folder = "";
    beforeAll(async () => {
      folder = await mkdtemp(join(ROOT, "build/browser-"));
      await build({
        root: fileURLToPath(new URL(".", import.meta.url)),
        configFile: false,
        logLevel: "error",
        worker: { format: "es" },
        build: { outDir: folder, rollupOptions: { input: join(ROOT, PAGE) } },
      });
    });
    afterAll(() => rm(folder, { recursive: true, force: true }));

    it.each([1, 2])("gives Node's bits on %s threads", async (threads) => {
      const opened = await open(folder, "page.html", true);
      const result = await runInWorker(opened, { ...OPTIONS, threads }, threads);
      expect(result).toEqual({ ...inNode, threads, threadsAfter: 1, workers: threads });
    });
  });
});
