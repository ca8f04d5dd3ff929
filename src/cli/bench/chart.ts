import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { FormatError } from "../../errors.js";
import { replaceFile } from "../../formats/write.js";
import type { Measurement } from "./case.js";
import { INSTALL } from "./contenders.js";

const run = promisify(execFile);

/** The program stands beside the competitors: the package itself has no library that draws. */
const PROGRAM = fileURLToPath(new URL("../../../bench/peers/chart.mjs", import.meta.url));
const LIBRARY = fileURLToPath(
  new URL("../../../bench/peers/node_modules/@observablehq/plot/", import.meta.url),
);

/**
 * Looks whether charts can be drawn here, before the work that one is to show.
 * @throws FormatError where the program or its library is not there
 */
export function expectChart(): void {
  if (!existsSync(PROGRAM)) {
    throw new FormatError(PROGRAM, "is not there: --chart needs a checkout of the repository");
  }
  if (!existsSync(LIBRARY)) {
    throw new FormatError(LIBRARY, `is not there: --chart needs what comes with ${INSTALL}`);
  }
}

/**
 * Draws the measurements as an SVG file.
 * @throws FormatError where it cannot be drawn or written
 */
export async function drawChart(path: string, lines: readonly Measurement[]): Promise<void> {
  const drawing = run(process.execPath, [PROGRAM], { maxBuffer: 1 << 26 });
  drawing.child.stdin?.on("error", () => {});
  drawing.child.stdin?.end(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  let svg: string;
  try {
    svg = (await drawing).stdout;
  } catch (error) {
    const reason = (error as { stderr?: string }).stderr?.trim() || String(error);
    throw new FormatError(path, `cannot be drawn: ${reason}`);
  }
  await replaceFile(path, svg);
}
