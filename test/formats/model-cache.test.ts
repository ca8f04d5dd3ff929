// Downloads in headless Chromium, which has a file system for pages. `CHROMIUM` names another binary.

import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { huggingFaceConfig } from "../../src/formats/hf-config.js";
import { toHuggingFaceName } from "../../src/formats/hf-names.js";
import { type TensorData, writeSafetensors } from "../../src/formats/safetensors-write.js";
import { weightShapes } from "../../src/model/config.js";
import { type Server, serve } from "../backends/runtimes/serve.js";
import { chromiumMissing, launchChromium } from "../chromium.js";
import { concatenate, someWeights, tinyLlama } from "./helpers.js";
import { type ModelServer, modelServer } from "./model-server.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** What a download is cut into in the page's store. */
const PART = 32 << 20;
/** Of a tensor outside the model, which makes its file more than one part long. */
const EXTRA = PART + (1 << 20);

async function modelFiles(): Promise<Record<string, Uint8Array>> {
  const weights = someWeights(tinyLlama);
  const tensors = new Map<string, TensorData>(
    [...weightShapes(tinyLlama)].map(([ours, shape]) => [
      toHuggingFaceName(tinyLlama, ours).name,
      { dtype: "F32", shape, data: weights.get(ours) ?? new Float32Array(0) },
    ]),
  );
  tensors.set("extra", { dtype: "U8", shape: [EXTRA], data: new Uint8Array(EXTRA) });
  return {
    "config.json": new TextEncoder().encode(JSON.stringify(huggingFaceConfig(tinyLlama))),
    "model.safetensors": await concatenate(writeSafetensors(tensors)),
  };
}

/** The functions that `model-cache.mjs` gives the page. */
interface PageFunctions {
  load(url: string, options: { cache: boolean; abort: boolean }): Promise<Loaded>;
  clear(): Promise<void>;
  /** Where the download of the weights stands. */
  readonly loaded: number;
}

interface Loaded {
  /** The beginning of the embedding. */
  readonly values?: number[];
  readonly error?: string;
  /** Where the download of the weights stood first and last. */
  readonly progress: (number | undefined)[];
}

describe.skipIf(chromiumMissing("model-cache.test.ts"))("a page's store", () => {
  let browser: Browser;
  let page: Page;
  let pages: Server;
  let server: ModelServer;
  beforeAll(async () => {
    browser = await launchChromium();
    pages = await serve(ROOT, false);
    server = await modelServer(await modelFiles());
    page = await browser.newPage();
    await page.goto(`${pages.url}/test/formats/model-cache.html`);
    await page.waitForFunction(() => "load" in globalThis);
  });
  afterAll(async () => {
    await browser?.close();
    pages?.close();
    await server?.close();
  });

  /** Loads the model in the page, and tells which parts of its weights were asked for. @param abort at the first bytes */
  async function load({ cache = true, abort = false } = {}): Promise<Loaded & { requests: string[] }> {
    server.requests.length = 0;
    const loaded = await page.evaluate(
      ([url, options]) => (globalThis as unknown as PageFunctions).load(url, options),
      [server.url, { cache, abort }] as const,
    );
    const requests = server.requests.filter((request) => request.startsWith("model.safetensors "));
    return { ...loaded, requests: requests.map((request) => request.slice("model.safetensors ".length)) };
  }

  it("keeps what was downloaded, and goes on where it stopped", async () => {
    const size = server.files.get("model.safetensors")?.length ?? 0;
    const values = [...(someWeights(tinyLlama).get("embed.weight") ?? [])].slice(0, 8);

    const aborted = await load({ abort: true });
    expect(aborted.error).toContain("AbortError");
    server.etag = '"2"';
    server.breakAfter = PART + 1000;
    server.breaksAtOnce = false;
    const breaking = load();
    await page.waitForFunction(
      (bytes) => Number((globalThis as unknown as PageFunctions).loaded) >= bytes,
      PART + 1000,
    );
    server.breakNow?.();
    const broken = await breaking;
    expect(broken.error).toMatch(/FormatError: .*model.safetensors: broke off/);
    const resumed = await load();
    expect(resumed).toMatchObject({ values, requests: ["bytes=0-0", `bytes=${PART}-`] });
    expect(resumed.progress[0]).toBeGreaterThan(PART);
    expect(resumed.progress[1]).toBe(size);
    // What is there whole costs a question whether it is still the same.
    expect(await load()).toMatchObject({
      values,
      requests: ["bytes=0-0", "bytes=0-0"],
      progress: [size, size],
    });
    server.etag = '"3"';
    const anew = await load();
    expect(anew.values).toEqual(values);
    expect(anew.progress[0]).toBeLessThan(PART);
    expect(anew.progress[1]).toBe(size);
  });

  it("is used where the server is not reached, until it is cleared", async () => {
    const { values } = await load();
    expect(values).toHaveLength(8);
    const offline = async () => {
      await page.context().setOffline(true);
      // The page's own files are those that it has loaded already.
      const result = await load();
      await page.context().setOffline(false);
      return result;
    };
    expect(await offline()).toMatchObject({ values, requests: [] });
    await page.evaluate(() => (globalThis as unknown as PageFunctions).clear());
    expect((await offline()).error).toMatch(/cannot be fetched/);
    // Without the store parts are fetched as they are read, and nothing of what is no weight.
    const parts = await load({ cache: false });
    expect(parts.values).toEqual(values);
    expect(parts.progress.at(-1)).toBeLessThan(100_000);
  });
});
