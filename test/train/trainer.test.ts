import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { DivergenceError } from "../../src/errors.js";
import type { Model } from "../../src/model/model.js";
import { Tape } from "../../src/tape.js";
import { Arena, Parameters } from "../../src/tensor.js";
import type { BatchSource } from "../../src/train/batches.js";
import { type LanguageBatch, languageLoss } from "../../src/train/language.js";
import { AdamW } from "../../src/train/optimiser.js";
import { type Loss, type TrainOptions, train } from "../../src/train/trainer.js";
import { relativeDifference } from "../golden.js";
import { referenceLogits, referenceOf, softmax } from "../model/reference.js";
import { baseline, llama, loudModel, randomIds } from "../model/tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const OPTIONS: TrainOptions = { lr: 0.01, steps: 5, warmup: 0, decay: "constant", accumulate: 1, clip: 1 };

/** Loss Σ (x - target)² over one parameter x, in a way that every gradient is known: 2 (x - target). */
function quadratic(parameters: Parameters, calls: number[] = []): Loss<number> {
  const x = parameters.get("x");
  return (_, target, scale) => {
    calls.push(target);
    const before = x.read();
    const gradient = x.grad;
    if (!gradient) throw new Error("the optimiser has set no gradient");
    // `before` and the sum of gradients so far are at hand at once on wasm.
    const done = Promise.all([before, gradient.read()]).then(([values, sums]) => {
      gradient.write(sums.map((sum, i) => sum + scale * 2 * ((values[i] ?? 0) - target)));
      return values.reduce((sum, value) => sum + (value - target) ** 2, 0);
    });
    return async () => {
      const loss = await done;
      return { loss, terms: { square: loss }, tokens: 10 };
    };
  };
}

/** Batches without a state. */
const drawing = <Batch>(next: () => Batch): BatchSource<Batch> => ({ next, state: null });
const ones = drawing(() => 1);

async function stepsOf<T>(run: AsyncGenerator<T>): Promise<T[]> {
  const steps: T[] = [];
  for await (const step of run) steps.push(step);
  return steps;
}

describe("the training loop", () => {
  const make = () => new Parameters(backend, new Map([["x", [3]]]));

  it("reports every step, and averages what it accumulates", async () => {
    const parameters = make();
    const calls: number[] = [];
    const targets = [1, 3, 1, 3];
    let next = 0;
    const batches = drawing(() => targets[next++ % 4] as number);
    const [first, ...rest] = await stepsOf(
      train(parameters, quadratic(parameters, calls), batches, { ...OPTIONS, accumulate: 4, clip: 5 }),
    );
    expect(rest.map(({ step }) => step)).toEqual([2, 3, 4, 5]);
    expect(calls).toHaveLength(20);
    // Mean of 3·1² and 3·3²; gradient of the mean: 2·(0 - 2) in each of three.
    expect(first).toMatchObject({ step: 1, loss: 15, terms: { square: 15 }, tokens: 40, lr: 0.01 });
    expect(first?.gradientNorm).toBeCloseTo(4 * Math.sqrt(3), 5);
    expect(first?.tokensPerSecond).toBeGreaterThan(0);
    parameters.dispose();
  });

  it.each([Infinity, 30, 2])("scales a gradient longer than %j down to that", async (clip) => {
    const parameters = make();
    // One step of AdamW with a large eps, so that the gradient's size shows: lr · g / (|g| + eps).
    const options = { ...OPTIONS, steps: 1, clip, eps: 1 };
    const [step] = await stepsOf(
      train(
        parameters,
        quadratic(parameters),
        drawing(() => 5),
        options,
      ),
    );
    const norm = 10 * Math.sqrt(3);
    expect(step?.gradientNorm).toBeCloseTo(norm, 4);
    const g = 10 * Math.min(1, clip / norm);
    expect((await parameters.get("x").read())[0]).toBeCloseTo((0.01 * g) / (g + 1), 6);
    parameters.dispose();
  });

  it("takes back what it allocated, whether it runs out, is left, or throws", async () => {
    const { used } = backend.memory();
    const parameters = make();
    await stepsOf(train(parameters, quadratic(parameters), ones, OPTIONS));
    for await (const _ of train(parameters, quadratic(parameters), ones, OPTIONS)) break;
    await expect(
      stepsOf(
        train(
          parameters,
          quadratic(parameters),
          drawing(() => Number.NaN),
          OPTIONS,
        ),
      ),
    ).rejects.toThrow();
    expect(parameters.get("x").requiresGrad).toBe(false);
    expect(parameters.get("x").grad).toBeUndefined();
    parameters.dispose();
    expect(backend.memory().used).toBe(used);
  });

  it("names step, batch and term where a loss is no number", async () => {
    const parameters = make();
    let turn = 0;
    const batches = drawing(() => (++turn === 6 ? Number.NaN : 1));
    const run = train(parameters, quadratic(parameters), batches, { ...OPTIONS, accumulate: 4 });
    const steps: number[] = [];
    const all = async () => {
      for await (const { step } of run) steps.push(step);
    };
    await expect(all()).rejects.toThrow(DivergenceError);
    expect(steps).toEqual([1]);
    turn = 0;
    const again = train(parameters, quadratic(parameters), batches, { ...OPTIONS, accumulate: 4 });
    await expect(stepsOf(again)).rejects.toThrow(/^step 2, batch 2: square is NaN$/);
    turn = 0;
    const described = { ...batches, describe: (target: number) => `target ${target}` };
    const named = train(parameters, quadratic(parameters), described, { ...OPTIONS, accumulate: 4 });
    await expect(stepsOf(named)).rejects.toThrow(/^step 2, batch 2: square is NaN \(target NaN\)$/);
    parameters.dispose();
  });

  it("names the step where the gradient is no number, and does not take it", async () => {
    const parameters = make();
    const loss: Loss<number> = () => {
      parameters.get("x").grad?.write(Float32Array.of(1, Number.POSITIVE_INFINITY, 0));
      return async () => ({ loss: 1, terms: {}, tokens: 1 });
    };
    const run = stepsOf(train(parameters, loss, ones, OPTIONS));
    await expect(run).rejects.toThrow(DivergenceError);
    await expect(stepsOf(train(parameters, loss, ones, OPTIONS))).rejects.toThrow(
      /^step 1: the gradient's norm is/,
    );
    expect(await parameters.get("x").read()).toEqual(new Float32Array(3));
    parameters.dispose();
  });

  it("ends between two steps when its signal is aborted", async () => {
    const parameters = make();
    const controller = new AbortController();
    const seen: number[] = [];
    const run = async () => {
      const options = { ...OPTIONS, signal: controller.signal };
      for await (const { step } of train(parameters, quadratic(parameters), ones, options)) {
        seen.push(step);
        if (step === 2) controller.abort(new Error("enough"));
      }
    };
    await expect(run()).rejects.toThrow("enough");
    expect(seen).toEqual([1, 2]);
    // What was learned stays.
    expect((await parameters.get("x").read())[0]).toBeGreaterThan(0);
    const dead = { ...OPTIONS, signal: AbortSignal.abort() };
    await expect(stepsOf(train(parameters, quadratic(parameters), ones, dead))).rejects.toThrow(/abort/);
    parameters.dispose();
  });
});

it("lets a timer abort it, though nothing in it waits", async () => {
  const model = await loudModel(backend, llama);
  const batches = drawing(() => ({ ids: randomIds(10, llama.vocabSize), batch: 1 }));
  const signal = AbortSignal.timeout(30);
  let steps = 0;
  const run = async () => {
    const options = { ...OPTIONS, steps: 20_000, signal };
    for await (const step of train(model.weights, languageLoss(model), batches, options)) steps = step.step;
  };
  await expect(run()).rejects.toThrow(expect.objectContaining({ name: "TimeoutError" }));
  expect(steps).toBeGreaterThan(0);
  expect(steps).toBeLessThan(20_000);
  model.dispose();
});

describe("the language loss", () => {
  const batch: LanguageBatch = { ids: randomIds(4 * 9, llama.vocabSize), batch: 4 };
  const half = (i: number): LanguageBatch => ({
    ids: Array.from(batch.ids).slice(i * 18, (i + 1) * 18),
    batch: 2,
  });

  async function gradientOf(model: Model, batches: readonly LanguageBatch[]) {
    const optimiser = new AdamW(model.weights);
    const arena = new Arena(backend);
    const losses: number[] = [];
    for (const part of batches) {
      const tape = new Tape(arena);
      const read = languageLoss(model)(tape, part, 1 / batches.length);
      tape.backward();
      losses.push((await read()).loss);
    }
    const gradient = await optimiser.gradients.all.read();
    optimiser.dispose();
    arena.dispose();
    return { gradient, loss: losses.reduce((a, b) => a + b) / batches.length };
  }

  it("is the mean cross-entropy of each next token", async () => {
    const model = await loudModel(backend, llama);
    const { loss } = await gradientOf(model, [batch]);
    const reference = await referenceOf(model);
    let sum = 0;
    for (let s = 0; s < 4; s++) {
      const ids = Array.from(batch.ids).slice(s * 9, (s + 1) * 9);
      const logits = referenceLogits(reference, ids);
      for (let t = 0; t < 8; t++) sum -= Math.log(softmax(logits[t] ?? [])[ids[t + 1] ?? 0] ?? 0);
    }
    expect(loss).toBeCloseTo(sum / 32, 5);
    model.dispose();
  });

  it("has the gradient that the formulas have, scaled", async () => {
    const model = await loudModel(backend, llama);
    const optimiser = new AdamW(model.weights);
    const tape = new Tape(new Arena(backend));
    const ids = Array.from(batch.ids).slice(0, 9);
    languageLoss(model)(tape, { ids, batch: 1 }, 0.25);
    tape.backward();
    const reference = await referenceOf(model);
    const loss = () => {
      const logits = referenceLogits(reference, ids);
      return ids.slice(1).reduce((sum, id, t) => sum - Math.log(softmax(logits[t] ?? [])[id] ?? 0), 0) / 8;
    };
    for (const name of ["embed.weight", "layers.0.q.weight", "layers.1.down.weight", "norm.weight"]) {
      const values = reference.weights.get(name) ?? new Float64Array();
      const gradient = await optimiser.gradients.get(name).read();
      const scale = Math.hypot(...gradient) / Math.sqrt(gradient.length);
      for (const at of [1, 14]) {
        const was = values[at] ?? 0;
        const [up, down] = [1e-5, -1e-5].map((h) => {
          values[at] = was + h;
          return loss();
        });
        values[at] = was;
        const expected = (0.25 * ((up ?? 0) - (down ?? 0))) / 2e-5;
        expect(Math.abs((gradient[at] ?? Number.NaN) - expected), `${name}[${at}]`).toBeLessThan(
          1e-3 * scale,
        );
      }
    }
    optimiser.dispose();
    model.dispose();
  });

  it("of two batches of B has the gradient of one of 2B", async () => {
    const model = await loudModel(backend, llama);
    const one = await gradientOf(model, [batch]);
    const two = await gradientOf(model, [half(0), half(1)]);
    expect(two.loss).toBeCloseTo(one.loss, 5);
    expect(relativeDifference(two.gradient, one.gradient)).toBeLessThan(1e-5);
    model.dispose();
  });

  it("trains to the same weights either way", async () => {
    const weights = async (accumulate: number) => {
      const model = await loudModel(backend, llama);
      let turn = 0;
      const batches = drawing(() => (accumulate === 1 ? batch : half(turn++ % 2)));
      // Where a gradient is near 0, Adam's first steps amplify its rounding: a large eps keeps them comparable.
      const options = { ...OPTIONS, steps: 4, accumulate, eps: 1e-3 };
      await stepsOf(train(model.weights, languageLoss(model), batches, options));
      const values = await model.weights.all.read();
      model.dispose();
      return values;
    };
    expect(relativeDifference(await weights(2), await weights(1))).toBeLessThan(1e-5);
  });
});
