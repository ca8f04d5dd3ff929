import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FormatError } from "../../errors.js";
import type { GlobalOptions } from "../options.js";
import type { ContenderSpec } from "./contender.js";
import { SUITES } from "./suites.js";

/** Folders of a checkout; the published package does not have them. */
const BENCH = new URL("../../../bench/", import.meta.url);

/** What installs the competitors. */
export const INSTALL = "npm run bench:peers:install";

export type Variant = "portable" | "revectorized";

/** Our own engine, with the options of the command line. */
export function ownSpec(options: GlobalOptions, threads: number, variant: Variant): ContenderSpec {
  const backendOptions = {
    kind: options.backend,
    threads,
    wasm: options.wasm,
    deterministic: options.deterministic,
    revectorize: variant === "revectorized",
  };
  const program = fileURLToPath(new URL("./own.js", import.meta.url));
  return {
    who: "oriflamme",
    variant,
    backend: options.backend === "webgpu" ? "webgpu" : "wasm",
    command: [process.execPath, program, JSON.stringify(backendOptions)],
    does: Object.fromEntries(Object.entries(SUITES).map(([name, { dtypes }]) => [name, dtypes])),
  };
}

/** The probe of what this machine can reach at most, or undefined where the checkout is not there. */
export function limitSpec(threads: number, variant: Variant): ContenderSpec | undefined {
  const program = fileURLToPath(new URL("limit/limit.mjs", BENCH));
  if (!existsSync(program)) return undefined;
  return {
    who: "limit",
    variant,
    backend: "wasm",
    command: [process.execPath, program, JSON.stringify({ threads, variant })],
    does: { limit: ["f32"] },
  };
}

/** The competitors: which file of `bench/peers` runs each, and what it does there. */
const PEERS: Readonly<
  Record<string, { readonly file: string } & Omit<ContenderSpec, "who" | "variant" | "command">>
> = {
  "onnxruntime-web": {
    file: "onnxruntime-web.mjs",
    backend: "wasm",
    does: { matmul: ["f32"] },
    singleThreaded: true,
  },
  "tfjs-wasm": { file: "tfjs-wasm.mjs", backend: "wasm", does: { matmul: ["f32"] }, singleThreaded: true },
  // Its threads are a page's workers, which Node does not have. Its memory ends at 4 GiB, of which the largest model
  // takes nearly all, and does not where a smaller one has left pieces behind.
  "jax-js": {
    file: "jax-js.mjs",
    backend: "wasm",
    does: { matmul: ["f32"], train: ["f32"] },
    singleThreaded: true,
    fresh: true,
  },
  "onnxruntime-node": { file: "onnxruntime-node.mjs", backend: "native", does: { matmul: ["f32"] } },
  "llama.cpp": { file: "llama-cpp.mjs", backend: "native", does: { decode: ["f32", "q8_0", "q4_0"] } },
  pytorch: {
    file: "pytorch.py",
    backend: "native",
    does: { matmul: ["f32"], attention: ["f32"], train: ["f32"] },
  },
};

/**
 * The competitors, each in a process of `bench/peers`.
 * @throws FormatError where the folder is not there
 */
export function peerSpecs(threads: number): ContenderSpec[] {
  const folder = fileURLToPath(new URL("peers/", BENCH));
  if (!existsSync(folder)) {
    throw new FormatError(folder, "is not there: --peers needs a checkout of the repository");
  }
  const python = process.env.ORIFLAMME_PYTHON ?? "python3";
  return Object.entries(PEERS).map(([who, { file, ...peer }]) => ({
    ...peer,
    who,
    variant: null,
    command: [
      file.endsWith(".py") ? python : process.execPath,
      `${folder}${file}`,
      JSON.stringify({ threads }),
    ],
  }));
}

/** How to come by a contender that could not take part. */
export function installHint({ who }: ContenderSpec): string {
  if (who === "limit") return "npm ci brings the compiler that it needs";
  if (who === "pytorch") return "set ORIFLAMME_PYTHON to a Python that can import torch";
  return `the competitors come with ${INSTALL}`;
}
