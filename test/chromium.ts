import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

/** Debian's, or where the variable says. */
const BINARY = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Whether there is no browser, which is then said: it is no dependency of the package. */
export function chromiumMissing(file: string): boolean {
  const isMissing = !existsSync(BINARY);
  if (isMissing) console.warn(`${file} is skipped: there is no Chromium at ${BINARY}`);
  return isMissing;
}

export function launchChromium(): Promise<Browser> {
  return chromium.launch({ executablePath: BINARY, args: ["--no-sandbox"] });
}
