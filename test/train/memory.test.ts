import { describe, expect, it } from "vitest";
import type { MemoryReport } from "../../src/backend.js";
import { type ModelConfig, weightShapes } from "../../src/model/config.js";
import { initialise } from "../../src/model/init.js";
import { Random } from "../../src/random.js";
import { sizeOf } from "../../src/tensor.js";
import { languageLoss } from "../../src/train/language.js";
import { train } from "../../src/train/trainer.js";
import { baseline, llama, randomIds } from "../model/tiny.js";
import { savedBytes } from "./saved-bytes.js";

/** One whose weights count for more, and one whose activations do. */
const SHAPES: readonly { config: ModelConfig; batch: number; length: number }[] = [
  {
    config: {
      ...llama,
      ...{ hiddenSize: 128, layers: 6, heads: 4, kvHeads: 2, headDim: 32, intermediateSize: 344 },
      ...{ vocabSize: 2000, contextLength: 128 },
    },
    batch: 1,
    length: 128,
  },
  {
    config: {
      ...llama,
      ...{ hiddenSize: 96, layers: 8, heads: 4, kvHeads: 4, headDim: 24, intermediateSize: 256 },
      ...{ vocabSize: 1000, contextLength: 128 },
    },
    batch: 5,
    length: 128,
  },
];

async function reportsOf(
  { config, batch, length }: (typeof SHAPES)[number],
  steps: number,
): Promise<MemoryReport[]> {
  const backend = await baseline();
  const model = initialise(backend, config, null, new Random(1));
  const ids = randomIds(batch * length, config.vocabSize);
  const options = { lr: 1e-3, warmup: 0, decay: "constant", accumulate: 1, clip: 1 } as const;
  const reports: MemoryReport[] = [];
  const batches = { next: () => ({ ids, batch }), state: null };
  const run = train(model.weights, languageLoss(model), batches, { ...options, steps });
  for await (const _ of run) reports.push(backend.memory());
  model.dispose();
  backend.dispose();
  return reports;
}

describe.each(SHAPES)("training $config.hiddenSize × $config.layers on $batch × $length", (shape) => {
  const parameters = [...weightShapes(shape.config).values()].reduce(
    (sum, dims) => sum + 4 * sizeOf(dims),
    0,
  );
  const saved = shape.batch * shape.length * savedBytes(shape.config);

  it("takes at most 1.2 times what its weights, gradients, moments and saved activations need", async () => {
    const report = (await reportsOf(shape, 2)).at(-1) as MemoryReport;
    expect(report.reserved).toBeLessThan(1.2 * (4 * parameters + saved));
    // Tensors begin at multiples of 256 bytes.
    const padding = 256 * weightShapes(shape.config).size;
    const { weights, gradients, moments, activations, kvCache, tables } = report.uses;
    for (const bytes of [weights, gradients, moments / 2]) {
      expect(bytes).toBeGreaterThanOrEqual(parameters);
      expect(bytes).toBeLessThan(parameters + padding);
    }
    expect(activations).toBeGreaterThan(saved);
    expect(kvCache).toBe(0);
    expect(tables).toBe(2 * 4 * 128 * (shape.config.headDim / 2));
    expect(weights + gradients + moments + activations + tables).toBe(report.used);
    expect(report.used + report.scratch + report.free).toBe(report.reserved);
  });

  it("allocates nothing after its first step", async () => {
    const [first, ...rest] = await reportsOf(shape, 12);
    for (const report of rest) expect(report).toEqual(first);
  });
});
