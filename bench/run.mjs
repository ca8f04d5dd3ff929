// Runs a TypeScript file from source: `node bench/run.mjs bench/ops.ts --json`.

import { resolve } from "node:path";
import { runnerImport } from "vite";

const file = resolve(process.argv[2]);
// The file sees its own arguments where it would had it been run itself.
process.argv.splice(1, 2, file);
await runnerImport(file);
