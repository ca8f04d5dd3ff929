import { existsSync } from "node:fs";
import { join, resolve } from "node:path";

/** The folder of golden values and third-party data, which lies outside the package. */
function sharedRoot(): string {
  return resolve(process.env.ORIFLAMME_SHARED ?? "../shared");
}

/** A path under the shared folder. */
export function sharedPath(...parts: string[]): string {
  return join(sharedRoot(), ...parts);
}

/**
 * Whether a path under the shared folder is missing; then says so on the console, as the tests that need it are
 * skipped: `describe.skipIf(sharedMissing("golden", "llama"))`.
 */
export function sharedMissing(...parts: string[]): boolean {
  const path = sharedPath(...parts);
  const missing = !existsSync(path);
  if (missing)
    console.warn(`skipped: '${path}' is missing (ORIFLAMME_SHARED says where the shared data lies)`);
  return missing;
}
