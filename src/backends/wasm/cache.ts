import { isNode } from "./runtime.js";

/** What was found out about this machine, kept from one run to the next. Losing it costs time, nothing else. */
export interface Cache {
  /** What was found under that name, of whatever type; undefined where nothing was, or it cannot be read. */
  get(name: string): unknown;
  /** Keeps a finding, a JSON value, where that is possible. */
  set(name: string, value: unknown): void;
}

/** Where there are no files: everything is found out again. */
const NO_CACHE: Cache = { get: () => undefined, set: () => {} };

/**
 * The findings about one build of the kernels on this runtime and processor: in Node a small JSON file for each, in
 * the user's cache folder. `ORIFLAMME_CACHE` names another folder, or is `off`.
 * @param digest of the build, so that other kernels share no findings
 */
export function openCache(digest: string): Cache {
  // Not by `import`, for which Node loads parts of `fs` that nothing here needs: 2 ms of every start.
  if (!isNode() || !process.getBuiltinModule) return NO_CACHE;
  const os = process.getBuiltinModule("node:os");
  const { join } = process.getBuiltinModule("node:path");
  const folder = cacheFolder(process.platform, os.homedir(), join);
  if (folder === undefined) return NO_CACHE;
  const machine = `node ${process.versions.node} ${os.cpus()[0]?.model ?? process.arch}`;
  return fileCache(join(folder, machine.toLowerCase().replace(/[^a-z0-9.]+/g, "-")), digest);
}

/** The package's folder in the user's cache, undefined where there is to be none. */
function cacheFolder(
  platform: string,
  home: string,
  join: (...parts: string[]) => string,
): string | undefined {
  const { ORIFLAMME_CACHE, LOCALAPPDATA, XDG_CACHE_HOME } = process.env;
  if (ORIFLAMME_CACHE) return ORIFLAMME_CACHE === "off" ? undefined : ORIFLAMME_CACHE;
  if (platform === "win32") return join(LOCALAPPDATA ?? join(home, "AppData", "Local"), "oriflamme");
  if (platform === "darwin") return join(home, "Library", "Caches", "oriflamme");
  return join(XDG_CACHE_HOME || join(home, ".cache"), "oriflamme");
}

function fileCache(folder: string, digest: string): Cache {
  const fs = process.getBuiltinModule("node:fs");
  const fileOf = (name: string) => `${folder}/${name}-${digest}.json`;
  return {
    get(name) {
      try {
        return JSON.parse(fs.readFileSync(fileOf(name), "utf8"));
      } catch {
        return undefined;
      }
    },
    set(name, value) {
      // Written beside and renamed, so that no reader ever sees half a file.
      const fresh = `${fileOf(name)}.${process.pid}`;
      try {
        fs.mkdirSync(folder, { recursive: true });
        fs.writeFileSync(fresh, JSON.stringify(value));
        fs.renameSync(fresh, fileOf(name));
      } catch {
        // A folder that cannot be written, or a full disk: it is found out again in the next run.
        try {
          fs.unlinkSync(fresh);
        } catch {
          // It never came to be.
        }
      }
    },
  };
}
