// Builds what the package ships: build/<build>.wasm from assembly/, src/generated/{wasm,wgsl}.ts from those and
// kernels/, dist/ from src/. With --missing only what is not there or older than its sources.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "rolldown";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const run = promisify(execFile);
const onlyMissing = process.argv.includes("--missing");

/** The builds of the kernels, and what the compiler is told for each. */
const RELAXED = ["--enable", "relaxed-simd"];
const SHARED = ["--enable", "threads", "--sharedMemory", "--maximumMemory", "65536"];
const BUILDS = {
  baseline: [],
  relaxed: RELAXED,
  "baseline-shared": SHARED,
  "relaxed-shared": [...RELAXED, ...SHARED],
};

async function newest(folder) {
  const entries = await readdir(join(root, folder), { withFileTypes: true, recursive: true });
  const files = entries.filter((entry) => entry.isFile() && !entry.parentPath.includes("generated"));
  const times = await Promise.all(
    files.map(async (entry) => (await stat(join(entry.parentPath, entry.name))).mtimeMs),
  );
  return Math.max(...times);
}

async function isStale(target, ...sources) {
  if (!onlyMissing) return true;
  try {
    const { mtimeMs } = await stat(join(root, target));
    return (await Promise.all(sources.map(newest))).some((time) => time > mtimeMs);
  } catch {
    return true;
  }
}

async function tool(script, args) {
  try {
    await run(process.execPath, [join(root, script), ...args], {
      cwd: root,
      maxBuffer: 1 << 26,
    });
  } catch (error) {
    process.stderr.write(`${error.stdout ?? ""}${error.stderr ?? error.message}\n`);
    process.exit(1);
  }
}

async function buildWasm() {
  await mkdir(join(root, "build"), { recursive: true });
  const flags = [
    "--enable",
    "simd",
    "--runtime",
    "stub",
    "--importMemory",
    "--noAssert",
    "-O3",
    "--converge",
  ];
  await Promise.all(
    Object.entries(BUILDS).map(([name, features]) =>
      tool("scripts/asc.mjs", ["assembly/index.ts", ...flags, ...features, "-o", `build/${name}.wasm`]),
    ),
  );
}

async function generate(name, content) {
  const file = join(root, "src/generated", name);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `// Made by scripts/build.mjs.\n${content}`);
}

async function inlineWasm() {
  for (const name of Object.keys(BUILDS)) {
    const bytes = await readFile(join(root, "build", `${name}.wasm`));
    await generate(
      `wasm/${name}.ts`,
      `/** The kernels, base64, and their digest. */\nexport const wasm: string =\n  "${bytes.toString("base64")}";\n` +
        `export const digest = "${createHash("sha256").update(bytes).digest("hex").slice(0, 16)}";\n`,
    );
  }
}

async function inlineWgsl() {
  const files = (await readdir(join(root, "kernels"))).filter((name) => name.endsWith(".wgsl")).sort();
  const entries = await Promise.all(
    files.map(async (name) => {
      const source = await readFile(join(root, "kernels", name), "utf8");
      return `  ${name.slice(0, -5)}: ${JSON.stringify(source)},\n`;
    }),
  );
  const type = "Readonly<Record<string, string>>";
  await generate(
    "wgsl.ts",
    `/** The shaders by kernel name. */\nexport const wgsl: ${type} = {\n${entries.join("")}};\n`,
  );
}

/**
 * What is started or imported by itself: the library, the report, the command line, a worker thread, the
 * benchmark of ourselves and what those of others build on.
 */
const ENTRIES = [
  "index",
  "eval/report",
  "cli/main",
  "backends/wasm/worker",
  "cli/bench/own",
  "cli/bench/kit",
];

/**
 * What the library loads at once: nothing that a browser lacks, nor what few models need. The report, which brings a charting library, and the
 * classifier, which starts processes, are loaded by who asks for them.
 */
const CORE =
  /\/src\/([\w-]+|backends\/create|(ops|model|train|generate|flag)\/[\w-]+|eval\/(?!(report|classifier)\.)[\w-]+|formats\/(?!(node|hf-tokenizer|hf-export|chat-template|url-files|http|model-cache)\.)[\w-]+)\.ts$/;

/**
 * One file for what is loaded together, since Node takes half a millisecond for every module that it loads (6 ms
 * instead of 35 for the library, measured); what the source imports when it is needed stays a file of its own, under
 * the name that it has there. Short local names, since an engine reads them all before the first result: 12 ms
 * instead of 18 of 45, measured; the source maps have the long ones.
 */
async function bundle(folder) {
  const source = join(root, "src");
  const nameOf = ({ facadeModuleId, name }) =>
    facadeModuleId ? `${relative(source, facadeModuleId).slice(0, -3)}.js` : `chunks/${name}.js`;
  await build({
    cwd: root,
    input: Object.fromEntries(ENTRIES.map((name) => [name, join(source, `${name}.ts`)])),
    platform: "neutral",
    external: (id) => !/^[./]/.test(id),
    resolve: { extensionAlias: { ".js": [".ts"] } },
    output: {
      ...{ dir: folder, entryFileNames: "[name].js", chunkFileNames: nameOf, sourcemap: true },
      codeSplitting: { groups: [{ name: "core", test: CORE }] },
      minify: { compress: false, mangle: true, codegen: false },
    },
  });
}

/** Compiles beside and swaps, so that a failed build leaves the last one whole. */
async function buildDist() {
  const fresh = join(root, "build/dist");
  await rm(fresh, { recursive: true, force: true });
  await tool("node_modules/typescript/bin/tsc", ["-p", "tsconfig.build.json", "--outDir", fresh]);
  await bundle(fresh);
  await rm(join(root, "dist"), { recursive: true, force: true });
  await rename(fresh, join(root, "dist"));
}

if (await isStale("src/generated/wasm/relaxed-shared.ts", "assembly", "scripts")) {
  await buildWasm();
  await inlineWasm();
}
if (await isStale("src/generated/wgsl.ts", "kernels", "scripts")) await inlineWgsl();
if (await isStale("dist/index.js", "src", "assembly", "kernels", "scripts")) await buildDist();
