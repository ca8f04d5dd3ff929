import { type KernelCall, setGlobals } from "./job.js";

/** Sizes of the register tile that the kernels can run on, rows by columns; see `assembly/tile.ts`. */
export const TILES = ["6x8", "4x8", "6x16", "4x16"] as const;

/** One of them. The results do not depend on it, to the last bit. */
export type Tile = (typeof TILES)[number];

/** Whether something that was read or given is the name of a tile. */
export function isTile(value: unknown): value is Tile {
  return TILES.includes(value as Tile);
}

/** The globals of an instance that say which tile it uses. */
export function tileGlobals(tile: Tile): { readonly tile_rows: number; readonly tile_cols: number } {
  const [rows = 0, cols = 0] = tile.split("x").map(Number);
  return { tile_rows: rows, tile_cols: cols };
}

/** Has an instance of the kernels use a tile from now on. */
export function setTile(instance: WebAssembly.Instance, tile: Tile): void {
  setGlobals(instance, tileGlobals(tile));
}

/** Rows, depth and columns of the product that is timed: whole tiles of every size, a block deep. */
const [M, K, N] = [96, 256, 96];
/** Bytes that `fastestTile` works in. */
export const TIMING_BYTES = 4 * (M * K + K * N + M * N);
/** Milliseconds after which V8 has replaced the code of its baseline compiler: 5 to 8 were seen. */
const TIER_UP = 12;
/** Milliseconds of a turn, and turns that the tiles get, after the second only those that are close to the fastest. */
const TURN = 1.5;
const TURNS = 6;
const CLOSE = 1.25;
/** What a tile must save to be taken before one that is named earlier: less is noise. */
const GAIN = 0.02;

/**
 * The tile that multiplies fastest here, by the best of a few short turns each, taken in alternation: which one it is
 * depends on the registers, and on whether the runtime fuses and pairs operations, but hardly on the shapes (of 3
 * shapes in 3 transpositions, one tile was the fastest in all without pairing, and in 8 with it). Takes 80 ms, or 30
 * where the code is optimised already.
 * @param base where `TIMING_BYTES` bytes of the memory are free
 */
export function fastestTile(
  instance: WebAssembly.Instance,
  memory: WebAssembly.Memory,
  base: number,
  isOptimised: boolean,
): Tile {
  new Uint8Array(memory.buffer, base, TIMING_BYTES).fill(0);
  const [a, b] = [base, base + 4 * M * K];
  const out = b + 4 * K * N;
  // No batch, A and B as they are, no base, the whole range: units of 16 columns.
  const args = [out, a, b, 0, 1, M, K, N, 0, K, 1, 0, N, 1, 0, N, 0, 0, 0, 1, 0, N / 16];
  const matmul = instance.exports.matmul as KernelCall;
  const run = (milliseconds: number) => {
    const start = performance.now();
    let calls = 0;
    let elapsed = 0;
    while (elapsed < milliseconds) {
      matmul(...args);
      calls++;
      elapsed = performance.now() - start;
    }
    return elapsed / calls;
  };
  const best = new Map<Tile, number>(TILES.map((tile) => [tile, Number.POSITIVE_INFINITY]));
  const time = (tile: Tile) => best.get(tile) as number;
  const turn = (tile: Tile, milliseconds: number) => {
    setTile(instance, tile);
    return run(milliseconds);
  };
  if (!isOptimised) for (const tile of TILES) turn(tile, TIER_UP);
  let contenders: readonly Tile[] = TILES;
  for (let i = 0; i < TURNS; i++) {
    for (const tile of contenders) best.set(tile, Math.min(time(tile), turn(tile, TURN)));
    const least = Math.min(...best.values());
    if (i > 0) contenders = contenders.filter((tile) => time(tile) <= CLOSE * least);
  }
  return contenders.reduce((one, other) => (time(other) < (1 - GAIN) * time(one) ? other : one));
}
