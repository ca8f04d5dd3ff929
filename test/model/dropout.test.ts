import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { FLAG_LOSS, redFlagLoss } from "../../src/flag/loss.js";
import { FlagScorer } from "../../src/flag/score.js";
import { type RedFlagTraining, trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag } from "../../src/flag/vocab.js";
import { adaptedLinear } from "../../src/model/lora.js";
import { dropout } from "../../src/ops/dropout.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { factor } from "../ops/dropout.js";
import { baseline, llama, loudModel } from "./tiny.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

describe("the mask", () => {
  const COUNT = 1 << 16;
  const kept = async (rate: number, seed: number) => {
    const tape = new Tape(new Arena(backend), false);
    const x = tape.filled([COUNT], 1);
    return (await dropout(tape, x, { rate, seed }).read()).map((value) => (value === 0 ? 0 : 1));
  };
  /** Of two masks, or of one and itself a little later, in standard deviations of what chance gives. */
  const correlation = (a: Float32Array, b: Float32Array, lag: number, rate: number) => {
    let sum = 0;
    for (let i = 0; i < COUNT; i++)
      sum += ((a[i] ?? 0) - (1 - rate)) * ((b[(i + lag) % COUNT] ?? 0) - (1 - rate));
    return sum / (rate * (1 - rate) * Math.sqrt(COUNT));
  };

  it.each([0.05, 0.1, 0.5, 0.9])("drops a share of %j, each element by itself", async (rate) => {
    const seeds = [0, 1, 2, 0x9e3779b9, 2 ** 31, 2 ** 32 - 1];
    const masks = await Promise.all(seeds.map((seed) => kept(rate, seed)));
    for (const mask of masks) {
      const share = mask.reduce((sum, one) => sum + one, 0) / COUNT;
      // Five standard deviations: one in two million.
      expect(Math.abs(share - (1 - rate))).toBeLessThan(5 * Math.sqrt((rate * (1 - rate)) / COUNT));
      for (const lag of [1, 2, 4, 64, 4096])
        expect(Math.abs(correlation(mask, mask, lag, rate))).toBeLessThan(5);
    }
    for (const [i, a] of masks.entries()) {
      for (const b of masks.slice(i + 1)) {
        for (const lag of [0, 1]) expect(Math.abs(correlation(a, b, lag, rate))).toBeLessThan(5);
      }
    }
  });

  it.each([
    [{ rate: 1, seed: 0 }, /^dropout: rate must be in \[0, 1\), got 1/],
    [{ rate: -0.1, seed: 0 }, /^dropout: rate/],
    [{ rate: Number.NaN, seed: 0 }, /^dropout: rate/],
    [{ rate: 0.5, seed: -1 }, /^dropout: seed/],
    [{ rate: 0.5, seed: 2 ** 32 }, /^dropout: seed/],
  ])("of %j is refused", (options, message) => {
    const tape = new Tape(new Arena(backend));
    expect(() => dropout(tape, tape.filled([4], 1), options)).toThrow(RangeError);
    expect(() => dropout(tape, tape.filled([4], 1), options)).toThrow(message);
  });
});

it("comes before A, a mask for each layer, and leaves the layer itself alone", async () => {
  const model = await loudModel(backend, llama);
  const flagged = await addRedFlag(model);
  const targets = ["layers.0.q", "layers.0.up"];
  const adapter = flagged.attach({ rank: 2, alpha: 4, targets, dropout: 0.4 }, 3);
  const random = new Random(5);
  for (const [, tensor] of adapter.parameters.entries())
    tensor.write((await tensor.read()).map(() => random.normal()));
  const values = Float32Array.from({ length: 3 * 16 }, () => random.normal());
  const tape = new Tape(new Arena(backend), false);
  const masks: number[][] = [];
  for (const [place, name] of targets.entries()) {
    const x = tape.from(values, [3, 16]);
    const found = await adaptedLinear(tape, model, adapter.dropping(77), name, x).read();
    const [w, a, b] = [
      await model.weight(`${name}.weight`).read(),
      await adapter.parameters.get(`${name}.a`).read(),
      await adapter.parameters.get(`${name}.b`).read(),
    ];
    const factors = Array.from(values, (_, i) => factor(i, 0.4, (77 + place * 0x9e3779b9) % 2 ** 32));
    masks.push(factors);
    const dot = (table: Float32Array, row: number, at: (c: number) => number, width: number) =>
      Array.from({ length: width }, (_, c) => (table[row * width + c] ?? 0) * at(c)).reduce((s, v) => s + v);
    const out = w.length / 16;
    for (let r = 0; r < 3; r++) {
      const down = [0, 1].map((k) =>
        dot(a, k, (c) => (values[r * 16 + c] ?? 0) * (factors[r * 16 + c] ?? 0), 16),
      );
      for (let o = 0; o < out; o++) {
        const plain = dot(w, o, (c) => values[r * 16 + c] ?? 0, 16);
        expect(found[r * out + o]).toBeCloseTo(plain + 2 * dot(b, o, (k) => down[k] ?? 0, 2), 3);
      }
    }
  }
  expect(masks[0]).not.toEqual(masks[1]);
  flagged.dispose();
});

describe("in training", () => {
  const training: RedFlagTraining = {
    harmful: [{ prompt: "the wolf ", response: "came and bit the hen", onset: 9 }],
    benign: [{ prompt: "the cow ", response: "came and fed the hen" }],
    ...{ steps: 4, lr: 0.01, warmup: 0, rank: 4, alpha: 8, harmfulBatch: 1, benignBatch: 1 },
  };
  const config = { ...llama, vocabSize: 258, contextLength: 48 };
  const run = async (changes: Partial<RedFlagTraining>) => {
    const flagged = await addRedFlag(await loudModel(backend, config, byteTokenizer()));
    const { steps } = await trainRedFlag(flagged, { ...training, ...changes });
    const values = await flagged.adapter?.parameters.all.read();
    return { flagged, outcome: { losses: steps.map(({ loss }) => loss), values } };
  };

  it("is the same for the same seed, and for blocks that are run again", async () => {
    const { outcome } = await run({ dropout: 0.3 });
    expect((await run({ dropout: 0.3 })).outcome).toEqual(outcome);
    expect((await run({ dropout: 0.3, gradientCheckpointing: true })).outcome).toEqual(outcome);
    expect((await run({ dropout: 0.3, seed: 1 })).outcome).not.toEqual(outcome);
    expect((await run({})).outcome).not.toEqual(outcome);
  });

  it("is of training only", async () => {
    const { flagged } = await run({ dropout: 0.3 });
    const scorer = new FlagScorer(flagged);
    const sequence = { prompt: [1, 2], response: [3, 4, 5] };
    const [a, b] = [await scorer.score(sequence), await scorer.score(sequence)];
    expect(a).toEqual(b);
    scorer.dispose();
    const terms = async (dropoutSeed?: number) => {
      const batch = {
        harmful: [{ ...sequence, onset: 0, insertAt: 1 }],
        benign: [sequence],
        ...(dropoutSeed === undefined ? {} : { dropoutSeed }),
      };
      return (await redFlagLoss(flagged, FLAG_LOSS)(new Tape(new Arena(backend)), batch, 1)()).terms;
    };
    const expected = -Math.log(a.probabilities[0] ?? 0) / 2 - Math.log(a.probabilities[1] ?? 0) / 2;
    expect((await terms()).ce).toBeCloseTo(expected, 4);
    expect(await terms(1)).toEqual(await terms(1));
    expect((await terms(1)).ce).not.toBeCloseTo(expected, 4);
    expect((await terms(2)).ce).not.toBeCloseTo((await terms(1)).ce ?? 0, 4);
  });
});
