import { BackendError } from "../../errors.js";
import { type Cache, openCache } from "./cache.js";
import { LOWEST, PAGE } from "./memory.js";
import { buildBytes, type WasmBuild } from "./module.js";
import { agree, CHECK_BYTES, compileRevectorized } from "./revectorize.js";
import { fastestTile, isTile, setTile, TIMING_BYTES, type Tile } from "./tiles.js";

/** The finding that the revectorised kernels give the same bits. */
const AGREES = "revectorized-agrees";

/** The kernels on a memory, as the calling thread has them. */
export interface Kernels {
  readonly module: WebAssembly.Module;
  readonly instance: WebAssembly.Instance;
  /** What each thread needs to scratch in. The calling thread's comes first. */
  readonly scratchBytes: number;
  readonly variant: "portable" | "revectorized";
  /** What the instance multiplies on; every thread's is to. */
  readonly tile: Tile;
}

/** How a build is loaded. */
export interface LoadOptions {
  /** Whether the memory is shared. */
  readonly shared: boolean;
  /** Let V8 pair vector operations: used where it can, and gives the same bits as without. */
  readonly revectorize: boolean;
  /** `auto`: the fastest, measured once on a machine that can keep what was found. */
  readonly tile: Tile | "auto";
}

/** Kernels before their tile is known. */
type Untuned = Omit<Kernels, "tile">;

async function instantiateKernels(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  variant: Kernels["variant"],
): Promise<Untuned> {
  const instance = await WebAssembly.instantiate(module, { env: { memory } });
  const { scratch, SCRATCH_BYTES: scratchBytes } = instance.exports;
  if (!(scratch instanceof WebAssembly.Global) || !(scratchBytes instanceof WebAssembly.Global)) {
    throw new BackendError("wasm: the module is not this version's kernels.wasm (it exports no scratch)");
  }
  scratch.value = LOWEST;
  return { module, instance, scratchBytes: scratchBytes.value, variant };
}

/** Has the kernels use the tile, the fastest where none is given. */
function tune(kernels: Untuned, memory: WebAssembly.Memory, wanted: Tile | "auto", cache?: Cache): Kernels {
  const { instance, scratchBytes, variant } = kernels;
  const name = `tile-${variant}`;
  let tile: unknown = wanted === "auto" ? cache?.get(name) : wanted;
  if (!isTile(tile)) {
    const base = reserve(memory, scratchBytes, TIMING_BYTES);
    tile = fastestTile(instance, memory, base, variant === "revectorized");
    cache?.set(name, tile);
  }
  setTile(instance, tile as Tile);
  return { ...kernels, tile: tile as Tile };
}

/** Where that many bytes behind the calling thread's scratch lie, which nobody uses yet. */
function reserve(memory: WebAssembly.Memory, scratchBytes: number, byteLength: number): number {
  const base = LOWEST + scratchBytes;
  const missing = Math.ceil((base + byteLength - memory.buffer.byteLength) / PAGE);
  if (missing > 0) memory.grow(missing);
  return base;
}

/** Instantiates kernels that were compiled elsewhere. @throws BackendError where they are not this version's */
export async function loadModule(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  tile: Tile | "auto",
): Promise<Kernels> {
  return tune(await instantiateKernels(module, memory, "portable"), memory, tile);
}

/** Compiles a build of the package and instantiates it. */
export async function loadBuild(
  build: WasmBuild,
  memory: WebAssembly.Memory,
  { shared, revectorize, tile }: LoadOptions,
): Promise<Kernels> {
  const { bytes, digest } = await buildBytes(build, shared);
  const cache = openCache(digest);
  const instantiatePortable = async () =>
    instantiateKernels(await WebAssembly.compile(bytes), memory, "portable");
  const module = revectorize ? await compileRevectorized(bytes) : undefined;
  if (!module) return tune(await instantiatePortable(), memory, tile, cache);
  const revectorized = await instantiateKernels(module, memory, "revectorized");
  if (cache.get(AGREES) !== true) {
    const portable = await instantiatePortable();
    const base = reserve(memory, portable.scratchBytes, CHECK_BYTES);
    if (!agree(portable.instance, revectorized.instance, memory, base))
      return tune(portable, memory, tile, cache);
    cache.set(AGREES, true);
  }
  return tune(revectorized, memory, tile, cache);
}
