import { BackendError } from "../../errors.js";
import { openCache } from "./cache.js";
import { JOB_BYTES } from "./job.js";
import { buildBytes, type WasmBuild } from "./module.js";
import { agree, CHECK_BYTES, compileRevectorized } from "./revectorize.js";

const PAGE = 65536;
/** The finding that the revectorised kernels give the same bits. */
const AGREES = "revectorized-agrees";

/** The kernels on a memory, as the calling thread has them. */
export interface Kernels {
  readonly module: WebAssembly.Module;
  readonly instance: WebAssembly.Instance;
  /** What each thread needs to scratch in. The calling thread's lies behind the job. */
  readonly scratchBytes: number;
  readonly variant: "portable" | "revectorized";
}

/** Instantiates compiled kernels. @throws BackendError where the module is not this version's */
export async function instantiate(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  variant: Kernels["variant"] = "portable",
): Promise<Kernels> {
  const instance = await WebAssembly.instantiate(module, { env: { memory } });
  const { scratch, SCRATCH_BYTES: scratchBytes } = instance.exports;
  if (!(scratch instanceof WebAssembly.Global) || !(scratchBytes instanceof WebAssembly.Global)) {
    throw new BackendError("wasm: the module is not this version's kernels.wasm (it exports no scratch)");
  }
  scratch.value = JOB_BYTES;
  return { module, instance, scratchBytes: scratchBytes.value, variant };
}

/**
 * Compiles a build of the package and instantiates it.
 * @param shared whether the memory is
 * @param revectorize let V8 pair vector operations: used where it can, and gives the same bits as without
 */
export async function loadBuild(
  build: WasmBuild,
  memory: WebAssembly.Memory,
  shared: boolean,
  revectorize: boolean,
): Promise<Kernels> {
  const { bytes, digest } = await buildBytes(build, shared);
  const instantiatePortable = async () => instantiate(await WebAssembly.compile(bytes), memory);
  const module = revectorize ? await compileRevectorized(bytes) : undefined;
  if (!module) return instantiatePortable();
  const revectorized = await instantiate(module, memory, "revectorized");
  const cache = openCache(digest);
  if (cache.get(AGREES) === true) return revectorized;
  const portable = await instantiatePortable();
  const base = JOB_BYTES + portable.scratchBytes;
  const missing = Math.ceil((base + CHECK_BYTES - memory.buffer.byteLength) / PAGE);
  if (missing > 0) memory.grow(missing);
  if (!agree(portable.instance, revectorized.instance, memory, base)) return portable;
  cache.set(AGREES, true);
  return revectorized;
}
