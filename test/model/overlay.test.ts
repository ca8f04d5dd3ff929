import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { Adapter, RowOverlay, type RowValues } from "../../src/model/adapter.js";
import { linearLayers, type ModelConfig } from "../../src/model/config.js";
import { forward, head, vocabularySize } from "../../src/model/forward.js";
import type { Overlay } from "../../src/model/lora.js";
import { Model } from "../../src/model/model.js";
import { crossEntropy } from "../../src/ops/cross-entropy.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { AdamW } from "../../src/train/optimiser.js";
import { maxDifference, relativeDifference } from "../golden.js";
import { referenceLogits, referenceOf } from "./reference.js";
import { ALL_CONFIGS, baseline, CONFIGS, logitsOf, loudModel } from "./tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

/** A reused id and an appended one, both in use. */
const ROW_IDS = [5, 19];
const ids = [3, 5, 19, 7, 5, 5, 19, 0];
const targets = [5, 19, 7, 5, 5, 19, 0, 3];

function someRows(config: ModelConfig, rowIds = ROW_IDS): RowValues {
  const random = new Random(11);
  const values = () =>
    Float32Array.from({ length: rowIds.length * config.hiddenSize }, () => 0.5 * random.normal());
  const input = values();
  return { ids: rowIds, input, output: config.tied ? input : values() };
}

/** An adapter whose B is not 0 either. */
function someAdapter(model: Model, fillB = true): Adapter {
  const random = new Random(5);
  const shape = { rank: 3, alpha: 6, targets: linearLayers(model.config) };
  const adapter = new Adapter(model, shape, someRows(model.config), random);
  for (const name of fillB ? shape.targets : []) {
    const b = adapter.lora(name)?.b;
    b?.write(Float32Array.from({ length: b.size }, () => 0.3 * random.normal()));
  }
  return adapter;
}

/** A plain model that is what model and adapter are together: rows in their place, B · A added to the weights. */
async function merged(model: Model, overlay: Overlay): Promise<Model> {
  const { config } = model;
  const size = config.hiddenSize;
  const { ids: rowIds, input, output } = overlay.rows ?? { ids: [] };
  const [inputs, outputs] = [(await input?.read()) ?? [], (await output?.read()) ?? []];
  const longer = { ...config, vocabSize: vocabularySize(config, overlay) };
  return Model.fromValues(backend, longer, null, async (name) => {
    const values = await model.weight(name).read();
    if (name === "embed.weight" || name === "head.weight") {
      const table = new Float32Array(longer.vocabSize * size);
      table.set(values);
      const rows = name === "head.weight" ? outputs : inputs;
      for (const [i, id] of rowIds.entries())
        table.set(Array.from(rows).slice(i * size, (i + 1) * size), id * size);
      return table;
    }
    const lora = overlay.lora(name.replace(/\.weight$/, ""));
    if (!lora || name.endsWith(".bias")) return values;
    const [a, b] = [await lora.a.read(), await lora.b.read()];
    const [rank = 0, width = 0] = lora.a.shape;
    return values.map((value, at) => {
      const [row, col] = [Math.floor(at / width), at % width];
      let sum = 0;
      for (let r = 0; r < rank; r++) sum += (b[row * rank + r] ?? 0) * (a[r * width + col] ?? 0);
      return value + lora.scale * sum;
    });
  });
}

/** Loss gradients of the parameters that an optimiser holds. */
async function gradients(
  model: Model,
  optimiser: AdamW,
  overlay?: Overlay,
): Promise<Map<string, Float32Array>> {
  const arena = new Arena(backend);
  const tape = new Tape(arena);
  const logits = head(tape, model, forward(tape, model, ids, { overlay }), overlay);
  crossEntropy(tape, logits, tape.from(Uint32Array.from(targets)), {
    weights: tape.filled([ids.length], 1 / ids.length),
  });
  tape.backward();
  const found = new Map<string, Float32Array>();
  for (const [name, tensor] of optimiser.gradients.entries()) found.set(name, await tensor.read());
  arena.dispose();
  return found;
}

describe.each(ALL_CONFIGS)("an overlay on %s", (_, config) => {
  let model: Model;
  beforeAll(async () => {
    model = await loudModel(backend, config);
  });

  it("of rows and additions gives the merged model's logits, and float64's", async () => {
    const adapter = someAdapter(model);
    const found = await logitsOf(model, ids, { overlay: adapter });
    expect(found).toHaveLength(ids.length * (config.vocabSize + 1));
    const plain = await merged(model, adapter);
    expect(maxDifference(found, await logitsOf(plain, ids))).toBeLessThan(1e-4);
    const reference = referenceLogits(await referenceOf(model, adapter), ids).flat();
    expect(maxDifference(found, reference)).toBeLessThan(1e-4);
    plain.dispose();
    adapter.dispose();
  });

  it("has the merged model's gradients", async () => {
    const adapter = someAdapter(model);
    const plain = await merged(model, adapter);
    const ours = new AdamW(adapter.parameters);
    const theirs = new AdamW(plain.weights);
    const found = await gradients(model, ours, adapter);
    const expected = await gradients(plain, theirs);
    const size = config.hiddenSize;
    const rowsOf = (name: string) => {
      const table = expected.get(name) ?? new Float32Array();
      return ROW_IDS.flatMap((id) => Array.from(table.slice(id * size, (id + 1) * size)));
    };
    expect(relativeDifference(found.get("rows.input") ?? [], rowsOf("embed.weight"))).toBeLessThan(1e-4);
    if (!config.tied) {
      expect(relativeDifference(found.get("rows.output") ?? [], rowsOf("head.weight"))).toBeLessThan(1e-4);
    }
    for (const name of linearLayers(config)) {
      const { a, b, scale } = adapter.lora(name) ?? {};
      if (!a || !b || !scale) throw new Error(`${name} has no addition`);
      const dw = expected.get(`${name}.weight`) ?? new Float32Array();
      // dB = scale · dW · Aᵀ, dA = scale · Bᵀ · dW.
      const [av, bv] = [await a.read(), await b.read()];
      const [rank = 0, width = 0] = a.shape;
      const out = b.shape[0] ?? 0;
      const db = new Float64Array(out * rank);
      const da = new Float64Array(rank * width);
      for (let o = 0; o < out; o++) {
        for (let r = 0; r < rank; r++) {
          for (let i = 0; i < width; i++) {
            const d = scale * (dw[o * width + i] ?? 0);
            db[o * rank + r] = (db[o * rank + r] ?? 0) + d * (av[r * width + i] ?? 0);
            da[r * width + i] = (da[r * width + i] ?? 0) + d * (bv[o * rank + r] ?? 0);
          }
        }
      }
      expect(relativeDifference(found.get(`${name}.b`) ?? [], db), `${name}.b`).toBeLessThan(1e-4);
      expect(relativeDifference(found.get(`${name}.a`) ?? [], da), `${name}.a`).toBeLessThan(1e-4);
    }
    ours.dispose();
    theirs.dispose();
    plain.dispose();
    adapter.dispose();
  });

  it("whose B is 0 changes nothing, to the bit", async () => {
    const adapter = someAdapter(model, false);
    const rows = new RowOverlay(model, someRows(config));
    expect(await logitsOf(model, ids, { overlay: adapter })).toEqual(
      await logitsOf(model, ids, { overlay: rows }),
    );
    adapter.dispose();
    rows.dispose();
  });

  it("of an appended row leaves the model's own logits alone", async () => {
    const rows = new RowOverlay(model, someRows(config, [19]));
    const known = [3, 5, 7, 1];
    const [found, plain] = [await logitsOf(model, known, { overlay: rows }), await logitsOf(model, known)];
    for (let t = 0; t < known.length; t++) {
      const own = found.slice(t * 20, t * 20 + 19);
      expect(own).toEqual(plain.slice(t * 19, (t + 1) * 19));
    }
    rows.dispose();
  });

  it("knows its own ids, and no more", async () => {
    const rows = new RowOverlay(model, someRows(config));
    expect(vocabularySize(config)).toBe(19);
    expect(vocabularySize(config, rows)).toBe(20);
    await expect(logitsOf(model, [20], { overlay: rows })).rejects.toThrow(
      /token id 20 is outside the vocabulary of 20/,
    );
    await expect(logitsOf(model, [19])).rejects.toThrow(/token id 19 is outside/);
    rows.dispose();
  });

  it("names only layers that exist", () => {
    const make = (target: string) =>
      new Adapter(model, { rank: 2, alpha: 2, targets: [target] }, someRows(config), new Random(0));
    const { used } = backend.memory();
    expect(() => make("layers.7.q")).toThrow(/no linear layer 'layers.7.q'/);
    expect(() => make("head")).toThrow(RangeError);
    expect(backend.memory().used).toBe(used);
  });
});

it("an optimiser that is let go leaves the base without gradients", async () => {
  const [, config] = CONFIGS[0];
  const model = await loudModel(backend, config);
  const { used } = backend.memory();
  const optimiser = new AdamW(model.weights);
  optimiser.dispose();
  expect(backend.memory().used).toBe(used);
  for (const [, tensor] of model.weights.entries()) {
    expect([tensor.requiresGrad, tensor.grad]).toEqual([false, undefined]);
  }
});
