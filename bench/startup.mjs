// How long the built package takes from its import to the first result, a product of 64 × 64 matrices read back, in
// fresh processes whose variants alternate: `node bench/startup.mjs [--runs N] [--json]`.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** The library's and the command line's defaults, on all threads and on one; without what earlier runs found out. */
const VARIANTS = [
  { name: "library", options: {} },
  { name: "library, 1 thread", options: { threads: 1 } },
  { name: "command line", options: { revectorize: true } },
  { name: "command line, 1 thread", options: { revectorize: true, threads: 1 } },
  { name: "command line, no cache", options: { revectorize: true }, cache: "off" },
];
const COLUMNS = ["import", "create", "first", "total", "process"];

/** In the child: milliseconds of each part. */
async function measureStart(options) {
  const start = performance.now();
  const { Arena, createBackend, matmul, Tape } = await import("../dist/index.js");
  const imported = performance.now();
  const backend = await createBackend({ kind: "wasm", ...options });
  const created = performance.now();
  const tape = new Tape(new Arena(backend), false);
  const a = tape.from(new Float32Array(64 * 64).fill(1), [64, 64]);
  await matmul(tape, a, a).read();
  const end = performance.now();
  backend.dispose();
  return { import: imported - start, create: created - imported, first: end - created, total: end - start };
}

/** The parts of a fresh process, and the whole of it. */
function run({ options, cache }, folder) {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [fileURLToPath(import.meta.url), "--child", JSON.stringify(options)],
    { encoding: "utf8", env: { ...process.env, ORIFLAMME_CACHE: cache ?? folder } },
  );
  if (status !== 0) throw new Error(`a run ended with ${status}: ${stderr}`);
  return { ...JSON.parse(stdout), process: performance.now() - start };
}

function median(values) {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

function compare(runs, asJson) {
  const folder = mkdtempSync(join(tmpdir(), "oriflamme-startup-"));
  try {
    for (const variant of VARIANTS) run(variant, folder);
    const times = VARIANTS.map(() => []);
    for (let i = 0; i < runs; i++) {
      for (const [v, variant] of VARIANTS.entries()) times[v].push(run(variant, folder));
    }
    if (!asJson) console.log(`${"median ms".padEnd(24)}${COLUMNS.map((name) => name.padStart(9)).join("")}`);
    for (const [v, { name }] of VARIANTS.entries()) {
      const medians = Object.fromEntries(COLUMNS.map((part) => [part, median(times[v].map((t) => t[part]))]));
      if (asJson) console.log(JSON.stringify({ variant: name, runs, milliseconds: medians }));
      else
        console.log(name.padEnd(24) + COLUMNS.map((part) => medians[part].toFixed(1).padStart(9)).join(""));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "20" },
    json: { type: "boolean", default: false },
    child: { type: "string" },
  },
});
if (values.child === undefined) compare(Number(values.runs), values.json);
else console.log(JSON.stringify(await measureStart(JSON.parse(values.child))));
