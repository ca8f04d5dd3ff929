// Makes docs/demo.svg: what `npm start` prints, as a picture. Run after `npm run build`.

import { spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const run = spawnSync(process.execPath, ["dist/cli/main.js", "demo"], {
  cwd: root,
  encoding: "utf8",
  env: { ...process.env, FORCE_COLOR: "1" },
});
if (run.status !== 0) throw new Error(run.stderr);

const COLUMNS = 96;
const [CHARACTER, LINE, MARGIN] = [8.4, 20, 20];
const COLOURS = { 31: "#e5484d", 33: "#d9a514" };
const escapeXml = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

/** Characters with their style, one list a line, folded at the width of the picture. */
function toLines(text) {
  const lines = [[]];
  let style = { bold: false, colour: null };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: terminal colours begin with one.
  for (const [part, codes] of text.matchAll(/\x1b\[([\d;]*)m|[^\x1b]/gu)) {
    if (codes !== undefined) {
      for (const code of codes.split(";").map(Number)) {
        if (code === 2) style = { ...style, colour: "#8a919e" };
        else if (code === 1) style = { ...style, bold: true };
        else if (code === 22)
          style = { ...style, bold: false, colour: style.colour === "#8a919e" ? null : style.colour };
        else if (code === 39) style = { ...style, colour: null };
        else if (code === 0) style = { bold: false, colour: null };
        else if (COLOURS[code]) style = { ...style, colour: COLOURS[code] };
      }
    } else if (part === "\n") lines.push([]);
    else {
      if (lines.at(-1).length >= COLUMNS) fold(lines);
      lines.at(-1).push({ part, style });
    }
  }
  return lines;
}

/** Moves the last, unfinished word to a new line. */
function fold(lines) {
  const line = lines.at(-1);
  const space = line.findLastIndex(({ part }) => part === " ");
  lines.push(space > 0 ? line.splice(space + 1) : []);
}

function lineToXml(line, index) {
  let xml = "";
  for (let i = 0; i < line.length; ) {
    let end = i;
    while (end < line.length && line[end].style === line[i].style) end++;
    const { bold, colour } = line[i].style;
    const attributes = `${bold ? ' font-weight="bold"' : ""}${colour ? ` fill="${colour}"` : ""}`;
    const text = escapeXml(
      line
        .slice(i, end)
        .map(({ part }) => part)
        .join(""),
    );
    xml += `<tspan${attributes}>${text}</tspan>`;
    i = end;
  }
  return `<text x="${MARGIN}" y="${MARGIN + LINE * (index + 0.8)}" xml:space="preserve">${xml}</text>`;
}

const lines = toLines(run.stdout.trimEnd());
const width = Math.ceil(COLUMNS * CHARACTER + 2 * MARGIN);
const height = lines.length * LINE + 2 * MARGIN;
const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="What npm start prints">
<rect width="100%" height="100%" rx="8" fill="#16181d"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" fill="#d5d9e0">
${lines.map(lineToXml).join("\n")}
</g>
</svg>
`;
await mkdir(join(root, "docs"), { recursive: true });
await writeFile(join(root, "docs/demo.svg"), svg);
