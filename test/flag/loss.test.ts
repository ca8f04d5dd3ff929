import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { FLAG_LOSS, type FlagBatch, type FlagLossOptions, redFlagLoss } from "../../src/flag/loss.js";
import { FlagScorer } from "../../src/flag/score.js";
import { addRedFlag, type FlaggedModel } from "../../src/flag/vocab.js";
import { linearLayers, type ModelConfig } from "../../src/model/config.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { AdamW } from "../../src/train/optimiser.js";
import { referenceOf } from "../model/reference.js";
import { baseline, CONFIGS, loudModel } from "../model/tiny.js";
import { divergence, nextAfter, referenceTerms, weighted } from "./reference.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const RF = 19;
const BATCH: FlagBatch = {
  harmful: [
    { prompt: [1, 2], response: [3, 4, 5, 6, 7], onset: 1, insertAt: 3 },
    { prompt: [8], response: [9, 10], onset: 0, insertAt: 0 },
  ],
  benign: [
    { prompt: [11, 12, 13], response: [14, 15] },
    { prompt: [5], response: [6, 6, 6, 7] },
  ],
};

/** A flag whose row and additions have moved away from where they began. */
async function movedFlag(config: ModelConfig): Promise<FlaggedModel> {
  const model = await loudModel(backend, config);
  const flagged = await addRedFlag(model);
  const adapter = flagged.attach({ rank: 2, alpha: 4, targets: linearLayers(config) }, 3);
  const random = new Random(9);
  for (const [name, tensor] of adapter.parameters.entries()) {
    if (name.endsWith(".a")) continue;
    const values = await tensor.read();
    tensor.write(values.map((value) => value + 0.2 * random.normal()));
  }
  return flagged;
}

const FORMS: Partial<FlagLossOptions>[] = [
  {},
  { reduction: "sum" },
  { klDirection: "reverse" },
  { reduction: "sum", klDirection: "reverse", ce: 0.5, post: 2, benign: 4 },
];

describe.each(CONFIGS)("the loss on %s", (_, config) => {
  it.each(FORMS)("with %j is the formulas', and so is its gradient", async (given) => {
    const options = { ...FLAG_LOSS, ...given };
    const flagged = await movedFlag(config);
    const adapter = flagged.adapter;
    if (!adapter) throw new Error("no adapter");
    const now = await referenceOf(flagged.model, adapter);
    const before = await referenceOf(flagged.model, flagged.reference);

    const optimiser = new AdamW(adapter.parameters);
    const arena = new Arena(backend);
    const tape = new Tape(arena);
    const read = redFlagLoss(flagged, options)(tape, BATCH, 0.5);
    tape.backward();
    const report = await read();
    const terms = referenceTerms(BATCH, now, before, options, RF);
    for (const name of ["ce", "post", "benign"] as const) {
      // A flag that has moved must diverge: else nothing would be compared.
      expect(terms[name]).toBeGreaterThan(0.01);
      expect((report.terms[name] ?? Number.NaN) / terms[name], name).toBeCloseTo(1, 3);
    }
    expect(report.loss / weighted(terms, options)).toBeCloseTo(1, 3);

    const derivative = (values: Float64Array, at: number) => {
      const was = values[at] ?? 0;
      const h = 1e-5;
      const moved = (to: number) => {
        values[at] = to;
        return weighted(referenceTerms(BATCH, now, before, options, RF), options);
      };
      const slope = (moved(was + h) - moved(was - h)) / (2 * h);
      values[at] = was;
      return slope;
    };
    const checks: [string, Float64Array | undefined, number[]][] = [
      ["rows.input", now.input.get(RF), [0, 7, 15]],
      ...(config.tied
        ? []
        : ([["rows.output", now.output.get(RF), [1, 9]]] as [string, Float64Array | undefined, number[]][])),
      ["layers.0.output.a", now.loras.get("layers.0.output")?.a, [0, 5]],
      ["layers.1.up.b", now.loras.get("layers.1.up")?.b, [0, 3]],
    ];
    for (const [name, values, places] of checks) {
      const gradient = await optimiser.gradients.get(name).read();
      const scale = Math.hypot(...gradient) / Math.sqrt(gradient.length);
      for (const at of places) {
        // The loss was scaled by a half.
        const expected = 0.5 * derivative(values ?? new Float64Array(), at);
        expect(Math.abs((gradient[at] ?? Number.NaN) - expected), `${name}[${at}]`).toBeLessThan(
          2e-3 * scale,
        );
      }
    }
    optimiser.dispose();
    arena.dispose();
    flagged.model.dispose();
    flagged.dispose();
  });

  it("adds to the adapter's gradients in the tape's backward, not before", async () => {
    const flagged = await movedFlag(config);
    if (!flagged.adapter) throw new Error("no adapter");
    const optimiser = new AdamW(flagged.adapter.parameters);
    const arena = new Arena(backend);
    const tape = new Tape(arena);
    await redFlagLoss(flagged)(tape, BATCH, 1)();
    expect((await optimiser.gradients.all.read()).every((value) => value === 0)).toBe(true);
    tape.backward();
    for (const [name, gradient] of optimiser.gradients.entries()) {
      expect(
        (await gradient.read()).some((value) => value !== 0),
        name,
      ).toBe(true);
    }
    optimiser.dispose();
    arena.dispose();
    flagged.dispose();
  });

  it("of a part of the terms is that part's", async () => {
    const flagged = await movedFlag(config);
    const read = async (batch: FlagBatch) => {
      const arena = new Arena(backend);
      const tape = new Tape(arena);
      const report = await redFlagLoss(flagged)(tape, batch, 1)();
      arena.dispose();
      return report;
    };
    const whole = await read(BATCH);
    expect((await read({ ...BATCH, benign: [] })).terms).toMatchObject({ benign: 0 });
    expect((await read({ ...BATCH, benign: [] })).terms.ce).toBeCloseTo(whole.terms.ce ?? 0, 5);
    const quiet = await read({ ...BATCH, harmful: [] });
    expect(quiet.terms).toMatchObject({ ce: 0, post: 0 });
    expect(quiet.loss).toBeCloseTo(whole.terms.benign ?? 0, 5);
    flagged.dispose();
  });

  it("begins without divergence on benign text", async () => {
    const flagged = await addRedFlag(await loudModel(backend, config));
    flagged.attach({ rank: 2, alpha: 4, targets: linearLayers(config) }, 3);
    const tape = new Tape(new Arena(backend));
    const { terms } = await redFlagLoss(flagged)(tape, BATCH, 1)();
    expect(Math.abs(terms.benign ?? 1)).toBeLessThan(1e-6);
    expect(terms.post).toBeGreaterThan(0.01);
  });
});

describe.each(CONFIGS)("scores on %s", (_, config) => {
  const sequence = { prompt: [1, 2], response: [3, 4, 5, 6] };

  it("are P(flag) before each token and after the last", async () => {
    const flagged = await movedFlag(config);
    const now = await referenceOf(flagged.model, flagged.overlay);
    const expected = [0, 1, 2, 3, 4].map(
      (n) => nextAfter(now, [1, 2, ...sequence.response.slice(0, n)])[RF] ?? 0,
    );
    const scorer = new FlagScorer(flagged);
    const level = expected[2] ?? 0;
    const found = await scorer.score(sequence, { kind: "threshold", level: level * 0.999 });
    expect([...found.probabilities].map((p, t) => p / (expected[t] ?? 0))).toEqual(
      expected.map(() => expect.closeTo(1, 3)),
    );
    expect(found.max / Math.max(...expected)).toBeCloseTo(1, 3);
    expect(found.cumulative).toBeCloseTo(1 - expected.reduce((product, p) => product * (1 - p), 1), 5);
    expect(found.first).toBe(expected.findIndex((p) => p >= level * 0.999));
    expect((await scorer.score(sequence, { kind: "threshold", level: 1 })).first).toBeNull();
    expect((await scorer.score({ prompt: [1], response: [] })).probabilities).toHaveLength(1);
    await expect(scorer.score({ prompt: [], response: [1] })).rejects.toThrow(/prompt: there must be/);
    scorer.dispose();
  });

  it("of argmax look at the likeliest token", async () => {
    const flagged = await movedFlag(config);
    const scorer = new FlagScorer(flagged);
    const now = await referenceOf(flagged.model, flagged.overlay);
    const likeliest = [0, 1, 2, 3, 4].map((n) => {
      const p = nextAfter(now, [1, 2, ...sequence.response.slice(0, n)]);
      return p.indexOf(Math.max(...p)) === RF;
    });
    const { first } = await scorer.score(sequence, { kind: "argmax" });
    expect(first).toBe(likeliest.includes(true) ? likeliest.indexOf(true) : null);
    scorer.dispose();
  });

  it("of utility are sums over the response", async () => {
    const flagged = await movedFlag(config);
    const scorer = new FlagScorer(flagged);
    const [now, before] = [
      await referenceOf(flagged.model, flagged.overlay),
      await referenceOf(flagged.model, flagged.reference),
    ];
    const expected = { kl: 0, loss: 0, refLoss: 0 };
    for (const [n, id] of sequence.response.entries()) {
      const context = [...sequence.prompt, ...sequence.response.slice(0, n)];
      const [p, q] = [nextAfter(now, context), nextAfter(before, context)];
      expected.kl += divergence(p, q);
      expected.loss -= Math.log(p[id] ?? 0);
      expected.refLoss -= Math.log(q[id] ?? 0);
    }
    const found = await scorer.utility(sequence);
    expect(found.tokens).toBe(4);
    for (const name of ["kl", "loss", "refLoss"] as const)
      expect(found[name] / expected[name], name).toBeCloseTo(1, 3);
    scorer.dispose();
  });
});
