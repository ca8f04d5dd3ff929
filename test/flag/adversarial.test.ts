import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import {
  ADVERSARIAL,
  type AdversarialOptions,
  adversarialLoss,
  attackProbability,
  meanEmbeddingNorm,
  worstPerturbations,
} from "../../src/flag/adversarial.js";
import { flagBatches } from "../../src/flag/data.js";
import { FLAG_LOSS, type HarmfulSequence } from "../../src/flag/loss.js";
import { type RedFlagTraining, trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag, type FlaggedModel } from "../../src/flag/vocab.js";
import { linearLayers, type ModelConfig } from "../../src/model/config.js";
import { Random } from "../../src/random.js";
import { Tape, type TapeOptions } from "../../src/tape.js";
import { Arena, type Parameters } from "../../src/tensor.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { AdamW } from "../../src/train/optimiser.js";
import { type ReferenceModel, referenceLogits, referenceOf, softmax } from "../model/reference.js";
import { baseline, CONFIGS, llama, loudModel } from "../model/tiny.js";
import { referenceTerms, weighted } from "./reference.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const RF = 19;
/** Of different lengths, so that the batch is padded, and with different flags. */
const SEQUENCES: HarmfulSequence[] = [
  { prompt: [1, 2], response: [3, 4, 5, 6, 7], onset: 1, insertAt: 3, isAttacked: true },
  { prompt: [8, 0, 4], response: [9, 10], onset: 0, insertAt: 0, isAttacked: true, flagId: RF + 1 },
];
/** Steps so large that the ball holds some of the tokens back. */
const SEARCH: AdversarialOptions = { ...ADVERSARIAL, steps: 4, stepSize: 0.02, radius: 0.1 };

/** Two flags whose rows and additions have moved away from where they began. */
async function movedFlag(config: ModelConfig): Promise<{ flagged: FlaggedModel; parameters: Parameters }> {
  const flagged = await addRedFlag(await loudModel(backend, config), { categories: ["a", "b"] });
  const { parameters } = flagged.attach({ rank: 2, alpha: 4, targets: linearLayers(config) }, 3);
  const random = new Random(9);
  for (const [name, tensor] of parameters.entries()) {
    if (name.endsWith(".a")) continue;
    const values = await tensor.read();
    tensor.write(values.map((value) => value + 0.2 * random.normal()));
  }
  return { flagged, parameters };
}

async function search(
  config: ModelConfig,
  options: AdversarialOptions,
  recording: TapeOptions = {},
): Promise<Float32Array[]> {
  const { flagged, parameters } = await movedFlag(config);
  const arena = new Arena(backend);
  const tape = new Tape(arena, true, recording);
  const found = await worstPerturbations(tape, flagged, parameters, SEQUENCES, options);
  arena.dispose();
  flagged.dispose();
  return SEQUENCES.map((sequence) => found.get(sequence) ?? new Float32Array());
}

/** Σ -ln P(its flag) over the positions that should flag, in float64. */
function flagLoss(m: ReferenceModel, sequence: HarmfulSequence, delta: ArrayLike<number>): number {
  const { prompt, response, onset, insertAt, flagId = RF } = sequence;
  const logits = referenceLogits(m, [...prompt, ...response.slice(0, insertAt)], delta);
  return logits
    .slice(prompt.length - 1 + onset)
    .reduce((sum, row) => sum - Math.log(softmax(row)[flagId] ?? 0), 0);
}

function slopes(values: Float64Array, at: readonly number[], value: () => number): number[] {
  const h = 1e-5;
  return at.map((i) => {
    const was = values[i] ?? 0;
    values[i] = was + h;
    const above = value();
    values[i] = was - h;
    const below = value();
    values[i] = was;
    return (above - below) / (2 * h);
  });
}

const norm = (values: ArrayLike<number>) => Math.hypot(...Array.from(values));

/** The search as PAPER.md has it, by central differences. */
function referenceSearch(
  m: ReferenceModel,
  sequence: HarmfulSequence,
  { steps, stepSize, radius, ball, positions }: AdversarialOptions,
): Float64Array {
  const width = m.config.hiddenSize;
  const tokens = sequence.prompt.length + (positions === "context" ? sequence.insertAt : 0);
  const delta = new Float64Array(tokens * width);
  const everywhere = [...delta.keys()];
  for (let step = 0; step < steps; step++) {
    const gradient = slopes(delta, everywhere, () => flagLoss(m, sequence, delta));
    for (const i of everywhere) delta[i] = (delta[i] ?? 0) + stepSize * Math.sign(gradient[i] ?? 0);
    const length = ball === "token" ? width : delta.length;
    for (let from = 0; from < delta.length; from += length) {
      const part = delta.subarray(from, from + length);
      const size = norm(part);
      if (size > radius) part.set(part.map((value) => (value * radius) / size));
    }
  }
  return delta;
}

const FORMS: Partial<AdversarialOptions>[] = [
  {},
  { ball: "sequence", radius: 0.15 },
  { positions: "context", steps: 3 },
];

describe.each(CONFIGS)("the worst perturbation on %s", (_, config) => {
  it.each(FORMS)("with %j is the formulas', and raises the loss", async (form) => {
    const options = { ...SEARCH, ...form };
    const { flagged } = await movedFlag(config);
    const reference = await referenceOf(flagged.model, flagged.overlay);
    const found = await search(config, options);
    for (const [s, sequence] of SEQUENCES.entries()) {
      const delta = found[s] ?? new Float32Array();
      const expected = referenceSearch(reference, sequence, options);
      expect(delta.length).toBe(expected.length);
      // A step of the other sign would be off by 2 · stepSize.
      for (const [i, value] of expected.entries()) expect(delta[i], `${s}[${i}]`).toBeCloseTo(value, 5);
      const before = flagLoss(reference, sequence, new Float64Array(delta.length));
      expect(flagLoss(reference, sequence, delta)).toBeGreaterThan(before + 0.01);

      const length = options.ball === "token" ? config.hiddenSize : delta.length;
      for (let from = 0; from < delta.length; from += length) {
        // Rounding to f32 may leave a length a 2⁻²⁴th part too long.
        expect(norm(delta.subarray(from, from + length))).toBeLessThanOrEqual(
          options.radius * (1 + 2 ** -23),
        );
      }
      expect(norm(delta.subarray(0, length))).toBeCloseTo(options.radius, 6);
    }
    flagged.dispose();
  });

  it("is not held back by a ball that the steps do not reach", async () => {
    const [delta] = await search(config, { ...SEARCH, steps: 2, stepSize: 0.001, radius: 10 });
    const steps = new Set(Array.from(delta ?? [], (value) => Math.abs(value).toFixed(6)));
    for (const size of steps) expect(["0.000000", "0.002000"]).toContain(size);
  });

  it("is the same with gradient checkpointing", async () => {
    expect(await search(config, SEARCH, { checkpoint: true })).toEqual(await search(config, SEARCH));
  });

  it("is searched without a trace in the gradients and the arena", async () => {
    const { flagged, parameters } = await movedFlag(config);
    const optimiser = new AdamW(parameters);
    const arena = new Arena(backend);
    const { used } = arena;
    await worstPerturbations(new Tape(arena), flagged, parameters, SEQUENCES, SEARCH);
    expect(arena.used).toBe(used);
    expect((await optimiser.gradients.all.read()).every((value) => value === 0)).toBe(true);
    for (const [, tensor] of parameters.entries()) expect(tensor.requiresGrad).toBe(true);
    optimiser.dispose();
    arena.dispose();
    flagged.dispose();
  });

  it("is what the outer loss and its gradient are taken at", async () => {
    const { flagged, parameters } = await movedFlag(config);
    const options = { ...SEARCH, radius: 0.05 };
    const radius = options.radius * (await meanEmbeddingNorm(flagged.model));
    const deltas = await search(config, { ...options, radius });
    const now = await referenceOf(flagged.model, flagged.overlay);
    const before = await referenceOf(flagged.model, flagged.reference);
    // The second conversation is not attacked.
    const harmful = SEQUENCES.map((sequence, s) => ({ ...sequence, isAttacked: s === 0 }));
    const [attacked, spared] = harmful;
    const perturbed = [{ ...attacked, perturbation: deltas[0] }, spared] as HarmfulSequence[];
    const expected = () => referenceTerms({ harmful: perturbed, benign: [] }, now, before, FLAG_LOSS, RF);

    const optimiser = new AdamW(parameters);
    const arena = new Arena(backend);
    const tape = new Tape(arena);
    const loss = await adversarialLoss(flagged, parameters, FLAG_LOSS, options);
    const read = await loss(tape, { harmful, benign: [] }, 1);
    tape.backward();
    const { terms } = await read();
    const wanted = expected();
    expect((terms.ce ?? 0) / wanted.ce).toBeCloseTo(1, 3);
    expect((terms.post ?? 0) / wanted.post).toBeCloseTo(1, 3);

    const places: [string, Float64Array | undefined, number[]][] = [
      ["rows.input", now.input.get(RF), [0, 7]],
      ["layers.0.output.a", now.loras.get("layers.0.output")?.a, [0, 5]],
      ["layers.1.up.b", now.loras.get("layers.1.up")?.b, [0, 3]],
    ];
    for (const [name, values = new Float64Array(), at] of places) {
      const gradient = await optimiser.gradients.get(name).read();
      const scale = norm(gradient) / Math.sqrt(gradient.length);
      const slope = slopes(values, at, () => weighted(expected(), FLAG_LOSS));
      for (const [i, place] of at.entries()) {
        // f32 against float64, through two layers and back.
        expect(Math.abs((gradient[place] ?? Number.NaN) - (slope[i] ?? 0))).toBeLessThan(2e-3 * scale);
      }
    }
    optimiser.dispose();
    arena.dispose();
    flagged.dispose();
  });
});

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

it("the mean norm is over the embedding's rows", async () => {
  const model = await loudModel(backend, llama);
  const table = await model.weight("embed.weight").read();
  const norms = Array.from({ length: 19 }, (_, row) => norm(table.slice(row * 16, (row + 1) * 16)));
  expect(await meanEmbeddingNorm(model)).toBeCloseTo(mean(norms), 6);
  model.dispose();
});

describe("who is attacked", () => {
  it("is so many of the batch in expectation", () => {
    expect(attackProbability(0.125, { harmful: 4, benign: 4 })).toBe(0.25);
    expect(attackProbability(0, { harmful: 0, benign: 4 })).toBe(0);
    expect(attackProbability(0.5, { harmful: 4, benign: 4 })).toBe(1);
    expect(() => attackProbability(0.51, { harmful: 4, benign: 4 })).toThrow(/at most 0.5/);
    expect(() => attackProbability(0.1, { harmful: 0, benign: 4 })).toThrow(/at most 0/);
  });

  it("is drawn by chance, and changes no other draw where there is none", () => {
    const harmful = [0, 1, 2, 3].map((id) => ({ prompt: [id], response: [1, 2, 3], onset: 0 }));
    const sizes = { harmful: 4, benign: 0 };
    const draw = (attacked?: number) => {
      const batches = flagBatches(
        harmful,
        [],
        { ...sizes, ...(attacked !== undefined && { attacked }) },
        new Random(1),
      );
      return Array.from({ length: 500 }, () => batches.next().harmful).flat();
    };
    const marked = draw(0.25).filter(({ isAttacked }) => isAttacked).length;
    // 2000 draws with p = 1/4 have a standard deviation of 19.
    expect(Math.abs(marked - 500)).toBeLessThan(80);
    expect(draw(1).every(({ isAttacked }) => isAttacked)).toBe(true);
    expect(draw(0)).toEqual(draw());
    expect(draw().some((sequence) => "isAttacked" in sequence)).toBe(false);
  });
});

describe("adversarial training", () => {
  const config = { ...llama, vocabSize: 258, contextLength: 48 };
  const training: RedFlagTraining = {
    harmful: ["the fox ate", "the wolf bit"].map((prompt) => ({ prompt, response: "the hen", onset: 4 })),
    benign: [{ prompt: "the cow fed", response: "the hen" }],
    ...{ steps: 4, lr: 0.01, warmup: 0, rank: 2, alpha: 4, harmfulBatch: 2, benignBatch: 2 },
  };
  const run = async (adversarial: Partial<AdversarialOptions>) => {
    const flagged = await addRedFlag(await loudModel(backend, config, byteTokenizer()));
    const { steps } = await trainRedFlag(flagged, { ...training, adversarial });
    flagged.dispose();
    return steps.map(({ loss }) => loss);
  };

  it("repeats its bits, and is off at a share of 0", async () => {
    const attack = { share: 0.5, steps: 2, stepSize: 0.05 };
    const losses = await run(attack);
    expect(await run(attack)).toEqual(losses);
    const off = await run({ share: 0 });
    expect(await run({})).toEqual(off);
    // Every harmful conversation is attacked, and the first batch is the same.
    expect(losses[0]).toBeGreaterThan(off[0] ?? Infinity);
  });

  it.each<[Partial<AdversarialOptions>, RegExp]>([
    [{ share: -0.1 }, /^adversarial.share must be a number from 0 to 1, got -0.1/],
    [{ share: 0.6 }, /^adversarial.share must be at most 0.5/],
    [{ steps: 0 }, /^adversarial.steps must be an integer from 1, got 0/],
    [{ stepSize: Number.NaN }, /^adversarial.stepSize must/],
    [{ radius: -1 }, /^adversarial.radius must/],
    [{ ball: "cube" as "token" }, /^adversarial.ball must be token or sequence, got 'cube'/],
    [{ positions: "all" as "prompt" }, /^adversarial.positions must be prompt or context, got 'all'/],
  ])("refuses %j", async (adversarial, message) => {
    await expect(run(adversarial)).rejects.toThrow(RangeError);
    await expect(run(adversarial)).rejects.toThrow(message);
  });
});
