import { readFile } from "node:fs/promises";

/** The installed version of a package that does not tell it itself. */
export async function versionOf(name) {
  const manifest = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(await readFile(manifest, "utf8")).version;
}
