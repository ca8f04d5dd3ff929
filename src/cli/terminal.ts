import { SingleBar } from "cli-progress";
import pc from "picocolors";

/** Progress of long work on stderr. */
export interface Progress {
  /** @param detail what stands behind the bar */
  update(done: number, detail?: string): void;
  stop(): void;
}

/** Updates over which the time left is estimated. */
const ETA_UPDATES = 50;

/**
 * A bar with the time left where stderr is a terminal, else silence.
 * @param done what was done before, which says nothing of the speed
 */
export function progressBar(label: string, total: number, done = 0): Progress {
  if (!process.stderr.isTTY) return { update() {}, stop() {} };
  const bar = new SingleBar({
    format: `${label} {bar} {value}/{total} {detail} ({eta_formatted} left)`,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    stream: process.stderr,
    hideCursor: true,
    etaBuffer: ETA_UPDATES,
  });
  bar.start(total, done, { detail: "" });
  return {
    update: (value, detail = "") => bar.update(value, { detail }),
    stop: () => bar.stop(),
  };
}

/** A line of JSON on stdout. */
export function jsonLine(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** A text in the colour of its flag probability: none, yellow from 0.1, red from 0.5. */
export function coloured(text: string, probability: number | null): string {
  if (probability === null || probability < 0.1) return text;
  return probability < 0.5 ? pc.yellow(text) : pc.bold(pc.red(text));
}

/** What stands where the flag was put into the context. */
export function flagMark(): string {
  return pc.bold(pc.red("⚑"));
}

/** Rows as columns, the first left and the others right; the first row is the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((row) => row[c]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row.map((cell, c) => (c === 0 ? cell.padEnd(widths[c] ?? 0) : cell.padStart(widths[c] ?? 0))).join("  ");
  const [head = [], ...body] = rows;
  return [pc.bold(line(head)), ...body.map(line)].join("\n");
}
