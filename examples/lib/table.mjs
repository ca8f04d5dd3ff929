// Results for a terminal.

/** A mean over seeds, and between which values they lie: `0.98 (0.97 to 0.99)`. */
export function meanAndSpread(values) {
  const digits = (value) => value.toFixed(2);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  if (values.length === 1) return digits(mean);
  return `${digits(mean)} (${digits(Math.min(...values))} to ${digits(Math.max(...values))})`;
}

/** Rows of text as columns, a line each. */
export function table(head, rows) {
  const lines = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  return lines
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i]))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
