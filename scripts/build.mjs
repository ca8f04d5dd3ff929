// Builds what the package ships: build/<build>.wasm from assembly/, src/generated/{wasm,wgsl}.ts from those and
// kernels/, dist/ from src/. With --missing only what is not there or older than its sources.

import { execFile } from "node:child_process";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

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

async function tool(name, args) {
  try {
    await run(process.execPath, [join(root, "node_modules", name), ...args], {
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
      tool("assemblyscript/bin/asc.js", [
        "assembly/index.ts",
        ...flags,
        ...features,
        "-o",
        `build/${name}.wasm`,
      ]),
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
      `/** The kernels, base64. */\nexport const wasm =\n  "${bytes.toString("base64")}";\n`,
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

/** Compiles beside and swaps, so that a failed build leaves the last one whole. */
async function buildDist() {
  const fresh = join(root, "build/dist");
  await rm(fresh, { recursive: true, force: true });
  await tool("typescript/bin/tsc", ["-p", "tsconfig.build.json", "--outDir", fresh]);
  await rm(join(root, "dist"), { recursive: true, force: true });
  await rename(fresh, join(root, "dist"));
}

if (await isStale("src/generated/wasm/relaxed-shared.ts", "assembly")) {
  await buildWasm();
  await inlineWasm();
}
if (await isStale("src/generated/wgsl.ts", "kernels")) await inlineWgsl();
if (await isStale("dist/index.js", "src", "assembly", "kernels")) await buildDist();
