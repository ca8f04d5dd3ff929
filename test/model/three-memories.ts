import type { Backend } from "../../src/backend.js";
import { type ModelConfig, weightShapes } from "../../src/model/config.js";
import type { Model } from "../../src/model/model.js";
import { layerOf } from "../../src/model/placement.js";
import { sizeOf } from "../../src/tensor.js";

/** One of six layers that are much larger than what lies outside them, and worth sharing among threads. */
export function deep(config: ModelConfig): ModelConfig {
  return { ...config, layers: 6, hiddenSize: 64, headDim: 16, intermediateSize: 160 };
}

/** Makes a model while three memories have room for the weights of two layers each; later they have all of it. */
export async function inThree(
  backend: Backend,
  config: ModelConfig,
  make: () => Promise<Model>,
): Promise<Model> {
  const ofLayer = [...weightShapes(config)].filter(([name]) => layerOf(name) === 0);
  const layer = ofLayer.reduce((sum, [, shape]) => sum + 4 * sizeOf(shape), 0);
  // A quarter of the room is not for weights.
  const room = (4 / 3) * 2.6 * layer;
  const memories = backend.openMemories?.(3) ?? [];
  const blocks = memories.map((memory) => memory.allocate((memory.room as number) - room));
  const model = await make();
  for (const [i, block] of blocks.entries()) memories[i]?.free(block);
  return model;
}
