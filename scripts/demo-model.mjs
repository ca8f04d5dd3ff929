// Makes models/demo again: writes the demo's corpus and trains the tiny base model on it with `pretrain`.
// Run after `npm run build`: node scripts/demo-model.mjs [further options of pretrain]

import { spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runnerImport } from "vite";
import { Random } from "../dist/index.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const corpus = join(root, "build/demo-corpus.txt");
await mkdir(join(root, "build"), { recursive: true });
const { demoText } = (await runnerImport(join(root, "src/cli/demo-corpus.ts"))).module;
await writeFile(corpus, demoText(new Random(7), 30000));

const command = ["dist/cli/main.js", "pretrain", "--data", corpus, "--out", "models/demo"];
const config = ["--config", "scripts/demo-model.json"];
const { status } = spawnSync(process.execPath, [...command, ...config, ...process.argv.slice(2)], {
  cwd: root,
  stdio: "inherit",
});
process.exitCode = status ?? 1;
