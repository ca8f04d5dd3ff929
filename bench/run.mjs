// Runs a TypeScript file from source, threads from what was built: `node bench/run.mjs bench/ops.ts --json`.

import { resolve } from "node:path";
import { runnerImport } from "vite";
import { builtWorker } from "../scripts/built-worker.mjs";

const file = resolve(process.argv[2]);
// The file sees its own arguments where it would had it been run itself.
process.argv.splice(1, 2, file);
await runnerImport(file, { plugins: [builtWorker] });
