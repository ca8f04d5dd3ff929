/**
 * Holds the three sides of every kernel together: its declaration in `src/`, the AssemblyScript export and the
 * WGSL file, by name, order and type.
 */

import { readdir, readFile } from "node:fs/promises";
import { beforeAll, describe, expect, it } from "vitest";
import { buildBytes } from "../src/backends/wasm/module.js";
import type { Kernel } from "../src/kernel.js";
import { declaredKernels } from "./ops/kernels.js";

const root = new URL("../", import.meta.url);

/** What a file says of a kernel: its parameters in order, as `name: type`. */
interface Signature {
  readonly file: string;
  readonly parameters: readonly string[];
}

async function sources(folder: string, extension: string): Promise<{ file: string; text: string }[]> {
  const names = (await readdir(new URL(folder, root))).filter((name) => name.endsWith(extension));
  return Promise.all(
    names.sort().map(async (name) => {
      const text = await readFile(new URL(`${folder}/${name}`, root), "utf8");
      return { file: `${folder}/${name}`, text: text.replace(/\/\/[^\n]*|\/\*[\s\S]*?\*\//g, "") };
    }),
  );
}

/** `a: usize, b: u32,` as a list, white space made one. */
function splitParameters(text: string): string[] {
  const parts = text.split(",").map((part) => part.trim().replace(/\s*:\s*/, ": "));
  return parts.filter((part) => part !== "");
}

/** The exported functions of `assembly/`, of which index.ts exports the kernels. */
async function assemblyFunctions(): Promise<Map<string, Signature>> {
  const found = new Map<string, Signature>();
  for (const { file, text } of await sources("assembly", ".ts")) {
    for (const [, name = "", parameters = ""] of text.matchAll(/export function (\w+)\s*\(([^)]*)\)/g)) {
      found.set(name, { file, parameters: splitParameters(parameters) });
    }
  }
  return found;
}

/** The shaders: storage bindings in the order of their numbers, then the fields of Params. */
async function shaders(): Promise<Map<string, Signature>> {
  const binding = /@group\((\d+)\)\s*@binding\((\d+)\)\s*var<([^>]+)>\s*(\w+)\s*:\s*([^;]+);/g;
  const found = new Map<string, Signature>();
  for (const { file, text } of await sources("kernels", ".wgsl")) {
    const bindings = [...text.matchAll(binding)].map(([, group, index, space, name, type]) => ({
      at: Number(index),
      text: `@group(${group}) ${space?.replace(/\s+/g, " ")} ${name}: ${type?.replace(/\s+/g, "")}`,
    }));
    bindings.sort((a, b) => a.at - b.at);
    const fields = splitParameters(/struct Params\s*\{([^}]*)\}/.exec(text)?.[1] ?? "");
    const parameters = [...bindings.map(({ at, text }) => `${at} ${text}`), ...fields];
    found.set(file.slice("kernels/".length, -".wgsl".length), { file, parameters });
  }
  return found;
}

function operands(kernel: Kernel): string[] {
  return [...kernel.writes, ...kernel.reads.map((name) => name.replace(/\?$/, ""))];
}

function numbers(kernel: Kernel): string[] {
  return [...kernel.dims.map((name) => `${name}: u32`), ...kernel.scalars.map((name) => `${name}: f32`)];
}

/** One line that names the kernel, the file and the first difference; empty where there is none. */
function firstDifference(kernel: Kernel, declared: readonly string[], found: Signature | undefined): string {
  if (!found) return `${kernel.name}: declared in src, but missing`;
  const length = Math.max(declared.length, found.parameters.length);
  for (let i = 0; i < length; i++) {
    const [want, got] = [declared[i], found.parameters[i]];
    if (want !== got) {
      return `${kernel.name}: parameter ${i} is '${want ?? "none"}' as declared, '${got ?? "none"}' in ${found.file}`;
    }
  }
  return "";
}

let kernels: Kernel[];

beforeAll(async () => {
  kernels = await declaredKernels();
});

describe("assembly", () => {
  it("takes writes, reads, dims, scalars, begin, end in the declared order", async () => {
    const functions = await assemblyFunctions();
    const differences = kernels.map((kernel) => {
      const pointers = operands(kernel).map((name) => `${name}: usize`);
      const declared = [...pointers, ...numbers(kernel), "begin: u32", "end: u32"];
      return firstDifference(kernel, declared, functions.get(kernel.name));
    });
    expect(differences.filter(Boolean)).toEqual([]);
  });

  for (const build of ["baseline", "relaxed"] as const) {
    it(`exports exactly the declared kernels from the ${build} build`, async () => {
      const module = await WebAssembly.compile((await buildBytes(build, false)).bytes);
      const functions = WebAssembly.Module.exports(module).filter(({ kind }) => kind === "function");
      const names = functions.map(({ name }) => name).sort();
      expect(names).toEqual(kernels.map(({ name }) => name));
    });
  }
});

describe("kernels", () => {
  it("bind writes, reads and the fields of Params in the declared order", async () => {
    const files = await shaders();
    const differences = kernels.map((kernel) => {
      const found = files.get(kernel.name);
      const elements = operands(kernel).map((name, i) => {
        // Ids and indices are u32; which operands those are, the op checks when it is called.
        const isU32 = found?.parameters[i]?.endsWith(": array<u32>");
        return `${i} @group(0) storage, read_write ${name}: array<${isU32 ? "u32" : "f32"}>`;
      });
      const params = `${elements.length} @group(0) uniform params: Params`;
      return firstDifference(kernel, [...elements, params, ...numbers(kernel)], found);
    });
    expect(differences.filter(Boolean)).toEqual([]);
  });

  it("decode stored weights alike: WGSL has no way to share a function between files", async () => {
    const decoders = (await sources("kernels", ".wgsl")).flatMap(({ text }) => {
      const [found] = /const F16 =[\s\S]*fn weight_at\([\s\S]*?\n\}\n/.exec(text) ?? [];
      return found === undefined ? [] : [found.replaceAll("table[", "weight[")];
    });
    expect(decoders).toHaveLength(3);
    expect(new Set(decoders).size).toBe(1);
  });

  it("are one file for every declared kernel", async () => {
    expect([...(await shaders()).keys()].sort()).toEqual(kernels.map(({ name }) => name));
  });
});

describe("declarations", () => {
  it("have names of their own", () => {
    const names = kernels.map(({ name }) => name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });

  it("name every parameter once, in lower case with underscores", () => {
    for (const kernel of kernels) {
      const names = [...operands(kernel), ...kernel.dims, ...kernel.scalars];
      expect(new Set(names).size, kernel.name).toBe(names.length);
      for (const name of [kernel.name, ...names]) expect(name).toMatch(/^[a-z][a-z0-9_]*$/);
    }
  });
});
