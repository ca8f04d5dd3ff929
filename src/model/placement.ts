import type { Backend } from "../backend.js";
import { bytesOf, type DType } from "../dtype.js";
import { BackendError } from "../errors.js";

/**
 * The part of a memory's room that weights take: the rest is for activations, keys and values, tables, and adapters
 * with their gradients and moments.
 */
const WEIGHT_SHARE = 3 / 4;

/** The layer of a weight, or part of one, by its name; undefined for the embedding, the head and the last norm. */
export function layerOf(name: string): number | undefined {
  const [, layer] = /^layers\.(\d+)\./.exec(name) ?? [];
  return layer === undefined ? undefined : Number(layer);
}

/**
 * In whose memory each weight is to lie: whole layers one after the other, in as few memories as have room for them,
 * and in all of these about the same. What belongs to no layer lies in the first.
 * @param dtypes types by name; f32 where there is none
 * @returns the backend for a weight's name
 * @throws BackendError for a layer that no memory has room for
 */
export function placeWeights(
  backend: Backend,
  shapes: ReadonlyMap<string, readonly number[]>,
  dtypes: ReadonlyMap<string, DType>,
): (name: string) => Backend {
  const { openMemories } = backend;
  if (!openMemories) return () => backend;
  const memoryAt = (place: number) => openMemories.call(backend, place + 1)[place] as Backend;
  const layers: number[] = [];
  let others = 0;
  for (const [name, shape] of shapes) {
    const bytes = bytesOf(dtypes.get(name) ?? "f32", shape);
    const layer = layerOf(name);
    if (layer === undefined) others += bytes;
    else layers[layer] = (layers[layer] ?? 0) + bytes;
  }
  const most = WEIGHT_SHARE * backend.maxBlockBytes;
  const large = layers.findIndex((bytes) => bytes > most);
  if (large >= 0) {
    throw new BackendError(
      `layer ${large} has ${layers[large]} bytes, but a memory has room for ${Math.floor(most)} of weights`,
    );
  }
  const places = placeLayers(others, layers, (place) => {
    const { room = Number.POSITIVE_INFINITY } = memoryAt(place);
    return WEIGHT_SHARE * room;
  });
  return (name) => memoryAt(places[layerOf(name) ?? -1] ?? 0);
}

/**
 * The place of each layer's memory, from 0.
 * @param others bytes of what lies in the first besides
 * @param layers bytes of each layer
 * @param roomIn bytes that there may be in the memory of that place; some have room for any layer
 */
export function placeLayers(
  others: number,
  layers: readonly number[],
  roomIn: (place: number) => number,
): number[] {
  const places = fill(others, layers, roomIn);
  const count = 1 + Math.max(0, ...places);
  const even = (others + layers.reduce((sum, bytes) => sum + bytes, 0)) / count + Math.max(0, ...layers);
  return fill(others, layers, (place) => Math.min(even, roomIn(place)));
}

/** Fills one memory after the other. */
function fill(others: number, layers: readonly number[], roomIn: (place: number) => number): number[] {
  let place = 0;
  let used = others;
  return layers.map((bytes) => {
    while (used + bytes > roomIn(place)) {
      place++;
      used = 0;
    }
    used += bytes;
    return place;
  });
}
