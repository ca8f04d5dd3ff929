import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { Adapter } from "../../src/model/adapter.js";
import { linearLayers, type ModelConfig } from "../../src/model/config.js";
import { forward } from "../../src/model/forward.js";
import { headCrossEntropy } from "../../src/model/head-loss.js";
import type { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { AdamW } from "../../src/train/optimiser.js";
import { type ReferenceModel, referenceLogits, referenceOf, softmax } from "./reference.js";
import { baseline, CONFIGS, logitsOf, loudModel } from "./tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

/** Two sequences, a reused id (5) and an appended one (19) among their ids. */
const SEQUENCES = [
  [3, 5, 19, 7, 5],
  [5, 11, 0, 19, 2],
];
const TARGETS = [
  [5, 19, 7, 5, 1],
  [11, 0, 19, 2, 5],
];
const IDS = SEQUENCES.flat();

function someAdapter(model: Model): Adapter {
  const random = new Random(5);
  const { config } = model;
  const values = () => Float32Array.from({ length: 2 * config.hiddenSize }, () => 0.5 * random.normal());
  const input = values();
  const rows = { ids: [5, 19], input, output: config.tied ? input : values() };
  const adapter = new Adapter(model, { rank: 3, alpha: 6, targets: linearLayers(config) }, rows, random);
  for (const name of adapter.config.targets) {
    const b = adapter.lora(name)?.b;
    b?.write(Float32Array.from({ length: b.size }, () => 0.3 * random.normal()));
  }
  return adapter;
}

function noise({ hiddenSize }: ModelConfig): Float32Array {
  const random = new Random(8);
  return Float32Array.from({ length: IDS.length * hiddenSize }, () => 0.3 * random.normal());
}

/** Σ -ln p(target) over both sequences. */
function referenceLoss(m: ReferenceModel, perturbation: Float64Array): number {
  const part = perturbation.length / SEQUENCES.length;
  return SEQUENCES.reduce((sum, ids, s) => {
    const logits = referenceLogits(m, ids, perturbation.subarray(s * part, (s + 1) * part));
    return sum - logits.reduce((a, row, t) => a + Math.log(softmax(row)[TARGETS[s]?.[t] ?? 0] ?? 0), 0);
  }, 0);
}

describe.each(CONFIGS)("a perturbation of the embeddings on %s", (_, config) => {
  it("is added to them, and stays as it is", async () => {
    const model = await loudModel(backend, config);
    const overlay = someAdapter(model);
    const values = noise(config);
    const tape = new Tape(new Arena(backend), false);
    const perturbation = tape.from(values, [IDS.length, config.hiddenSize]);
    const found = await logitsOf(model, IDS, { batch: 2, overlay, perturbation });
    const reference = await referenceOf(model, overlay);
    const expected = SEQUENCES.flatMap((ids, s) =>
      referenceLogits(reference, ids, values.slice((s * values.length) / 2)),
    ).flat();
    const scale = Math.hypot(...expected) / Math.sqrt(expected.length);
    // f32 against float64 through two layers.
    expected.forEach((value, i) => {
      expect(Math.abs((found[i] ?? Number.NaN) - value) / scale).toBeLessThan(1e-4);
    });
    expect(await perturbation.read()).toEqual(values);
  });

  it.each([
    ["frozen", false],
    ["trained", true],
  ])("gets the embeddings' gradient, the adapter being %s", async (_, isTrained) => {
    const model = await loudModel(backend, config);
    const overlay = someAdapter(model);
    const optimiser = isTrained ? new AdamW(overlay.parameters) : undefined;
    const values = noise(config);
    const arena = new Arena(backend);
    const tape = new Tape(arena);
    const perturbation = tape.from(values, [IDS.length, config.hiddenSize]);
    perturbation.requiresGrad = true;
    const hidden = forward(tape, model, IDS, { batch: 2, overlay, perturbation });
    const targets = tape.from(Uint32Array.from(TARGETS.flat()));
    headCrossEntropy(tape, model, { hidden, overlay }, targets, tape.filled([IDS.length], 1));
    tape.backward();
    const gradient = (await perturbation.grad?.read()) ?? new Float32Array();

    const reference = await referenceOf(model, overlay);
    const moved = Float64Array.from(values);
    const scale = Math.hypot(...gradient) / Math.sqrt(gradient.length);
    expect(scale).toBeGreaterThan(1e-3);
    for (let at = 0; at < moved.length; at += 7) {
      const was = moved[at] ?? 0;
      const h = 1e-5;
      const lossAt = (x: number) => {
        moved[at] = x;
        return referenceLoss(reference, moved);
      };
      const slope = (lossAt(was + h) - lossAt(was - h)) / (2 * h);
      moved[at] = was;
      // f32 through two layers and back; central differences are exact to 1e-8 of the slope.
      expect(Math.abs((gradient[at] ?? Number.NaN) - slope), `[${at}]`).toBeLessThan(2e-3 * scale);
    }
    if (optimiser) {
      const rows = await optimiser.gradients.get("rows.input").read();
      expect(rows.some((value) => value !== 0)).toBe(true);
    }
    optimiser?.dispose();
    arena.dispose();
    model.dispose();
  });

  it("of another shape is refused", async () => {
    const model = await loudModel(backend, config);
    const tape = new Tape(new Arena(backend), false);
    const perturbation = tape.filled([1, config.hiddenSize], 0);
    expect(() => forward(tape, model, [1, 2], { perturbation })).toThrow(
      /^forward: perturbation has shape \(1, 16\), expected \(2, 16\)/,
    );
    model.dispose();
  });
});
