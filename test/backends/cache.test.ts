import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openCache } from "../../src/backends/wasm/cache.js";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "oriflamme-cache-"));
  vi.stubEnv("ORIFLAMME_CACHE", join(folder, "cache"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

/** All files below the folder. */
async function files(): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

describe("the cache", () => {
  it("keeps a finding for the next run, and leaves nothing else behind", async () => {
    openCache("abc").set("tiles", [4, 16]);
    openCache("abc").set("tiles", [6, 8]);
    expect(openCache("abc").get("tiles")).toEqual([6, 8]);
    expect(await files()).toHaveLength(1);
  });

  it("does not mix up findings, builds and processors", async () => {
    openCache("abc").set("tiles", 1);
    expect(openCache("abc").get("others")).toBeUndefined();
    expect(openCache("abd").get("tiles")).toBeUndefined();
    const os = process.getBuiltinModule("node:os");
    const cpus = vi
      .spyOn(os, "cpus")
      .mockReturnValue([{ ...os.cpus()[0], model: "Another (TM) 9" } as never]);
    expect(openCache("abc").get("tiles")).toBeUndefined();
    cpus.mockRestore();
    expect(openCache("abc").get("tiles")).toBe(1);
  });

  it("takes a broken file for none, and mends it", async () => {
    openCache("abc").set("tiles", 1);
    const [file = ""] = await files();
    await writeFile(file, "[4, 1");
    expect(openCache("abc").get("tiles")).toBeUndefined();
    openCache("abc").set("tiles", 2);
    expect(openCache("abc").get("tiles")).toBe(2);
  });

  it("does without where it cannot write", async () => {
    await writeFile(join(folder, "cache"), "a file where the folder should be");
    const cache = openCache("abc");
    cache.set("tiles", 1);
    expect(cache.get("tiles")).toBeUndefined();
    expect(await files()).toHaveLength(1);
  });

  it("leaves no half-made file where it cannot replace the old one", async () => {
    openCache("abc").set("tiles", 1);
    const [file = ""] = await files();
    await rm(file);
    await mkdir(join(file, "in the way"), { recursive: true });
    openCache("abc").set("tiles", 2);
    expect(await files()).toEqual([]);
  });

  it("is off where it is told so", async () => {
    vi.stubEnv("ORIFLAMME_CACHE", "off");
    openCache("abc").set("tiles", 1);
    expect(openCache("abc").get("tiles")).toBeUndefined();
    expect(await files()).toEqual([]);
  });

  it("lies in the user's cache folder", async () => {
    vi.stubEnv("ORIFLAMME_CACHE", "");
    vi.stubEnv("XDG_CACHE_HOME", folder);
    const platform = vi.spyOn(process, "platform", "get").mockReturnValue("linux");
    openCache("abc").set("tiles", 1);
    platform.mockRestore();
    expect((await files()).map((file) => file.startsWith(join(folder, "oriflamme", "node-")))).toEqual([
      true,
    ]);
  });
});
