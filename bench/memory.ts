/**
 * What training takes of memory against what it needs by count: weights, gradients, two moments, and the activations
 * that the backward reads. On the models of `bench train`, after three steps:
 *
 *   node bench/run.mjs bench/memory.ts [--json]
 */

import { parseArgs } from "node:util";
import { createBackend } from "../src/backends/create.js";
import { benchLlama, llamaConfig } from "../src/cli/bench/llama.js";
import { noiseIds } from "../src/cli/bench/noise.js";
import { trainCases } from "../src/cli/bench/train.js";
import { weightShapes } from "../src/model/config.js";
import { sizeOf } from "../src/tensor.js";
import { languageLoss } from "../src/train/language.js";
import { train } from "../src/train/trainer.js";
import { savedBytes } from "../test/train/saved-bytes.js";

const OPTIONS = { lr: 1e-4, warmup: 0, decay: "constant", accumulate: 1, clip: 1, steps: 3 } as const;

const { values: options } = parseArgs({ options: { json: { type: "boolean", default: false } } });
for (const { shape } of trainCases) {
  const [vocab = 0, batch = 0, length = 0] = shape.slice(5);
  const config = llamaConfig(shape, length);
  // A backend of its own: memory that was reserved once stays so.
  const backend = await createBackend({ kind: "wasm", threads: 1 });
  const model = await benchLlama(backend, shape, length);
  const ids = noiseIds(batch * length, vocab, 0);
  for await (const _ of train(
    model.weights,
    languageLoss(model),
    { next: () => ({ ids, batch }), state: null },
    OPTIONS,
  ));
  const parameters = [...weightShapes(config).values()].reduce((sum, dims) => sum + 4 * sizeOf(dims), 0);
  const counted = 4 * parameters + batch * length * savedBytes(config);
  const { reserved } = backend.memory();
  const line = {
    bench: "memory",
    shape,
    counted_bytes: counted,
    reserved_bytes: reserved,
    ratio: reserved / counted,
  };
  const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  if (options.json) console.log(JSON.stringify(line));
  else
    console.log(
      `${shape.join("×")}: needs ${mebibytes(counted)}, takes ${mebibytes(reserved)}, ${line.ratio.toFixed(3)}×`,
    );
  model.dispose();
  backend.dispose();
}
