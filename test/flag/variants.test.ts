/** The loss of batches as training draws them, in every variant, against the formulas in float64. */

import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { type FlagSequence, flagBatches, usableSequences } from "../../src/flag/data.js";
import { FLAG_LOSS, type FlagBatch, redFlagLoss } from "../../src/flag/loss.js";
import type { Placement } from "../../src/flag/placement.js";
import { addRedFlag, type FlaggedModel, type RedFlagOptions } from "../../src/flag/vocab.js";
import { linearLayers, type ModelConfig } from "../../src/model/config.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { AdamW } from "../../src/train/optimiser.js";
import { relativeDifference } from "../golden.js";
import { referenceOf } from "../model/reference.js";
import { baseline, llama, loudModel, mistral } from "../model/tiny.js";
import { nextAfter, referenceTerms, weighted } from "./reference.js";

let backend: Backend;
beforeAll(async () => {
  backend = await baseline();
});

const HARMFUL: FlagSequence[] = [
  { prompt: [1, 2], response: [3, 4, 5, 6, 7], onset: 2 },
  { prompt: [8], response: [9, 10, 2], onset: 1 },
];
const BENIGN: FlagSequence[] = [
  { prompt: [11, 12, 13], response: [14, 15], onset: 0 },
  { prompt: [5], response: [6, 6, 6, 7], onset: 0 },
];

/** A flag whose row and additions have moved away from where they began. */
async function moved(config: ModelConfig, options: RedFlagOptions): Promise<FlaggedModel> {
  const flagged = await addRedFlag(await loudModel(backend, config), options);
  const adapter = flagged.attach({ rank: 2, alpha: 4, targets: linearLayers(config) }, 3);
  const random = new Random(9);
  for (const [name, tensor] of adapter.parameters.entries()) {
    if (!name.endsWith(".a")) tensor.write((await tensor.read()).map((x) => x + 0.2 * random.normal()));
  }
  return flagged;
}

/** The loss of batches, each scaled by its share, and the gradient of all together. */
async function lossOf(flagged: FlaggedModel, batches: readonly FlagBatch[], options = FLAG_LOSS) {
  if (!flagged.adapter) throw new Error("no adapter");
  const optimiser = new AdamW(flagged.adapter.parameters);
  const arena = new Arena(backend);
  const reports = [];
  for (const batch of batches) {
    arena.reset();
    const tape = new Tape(arena);
    const read = redFlagLoss(flagged, options)(tape, batch, 1 / batches.length);
    tape.backward();
    reports.push(await (await read)());
  }
  const gradient = await optimiser.gradients.all.read();
  optimiser.dispose();
  arena.dispose();
  return { reports, gradient };
}

const PLACEMENTS: Placement[] = ["uniform", "onset", "geometric(0.4)", "fixed"];
const ROWS: [string, ModelConfig, RedFlagOptions][] = [
  ["a row appended to a tied model", llama, {}],
  ["a row reused in a tied model", llama, { reuse: 16, init: "reserved" }],
  ["a row appended to an untied model", mistral, {}],
  ["a row reused in an untied model", mistral, { reuse: 16 }],
];

describe.each(ROWS)("%s", (_, config, options) => {
  it.each(PLACEMENTS)("under the placement %s has the terms of the formulas", async (placement) => {
    const flagged = await moved(config, options);
    const now = await referenceOf(flagged.model, flagged.overlay);
    const before = await referenceOf(flagged.model, flagged.reference);
    const sizes = { harmful: 2, benign: 2, placement, bucket: 4 };
    const batch = flagBatches(HARMFUL, BENIGN, sizes, new Random(8)).next();
    for (const form of [
      FLAG_LOSS,
      { ...FLAG_LOSS, reduction: "sum", klDirection: "reverse", ce: 0.5, post: 2, benign: 4 } as const,
    ]) {
      const { reports } = await lossOf(flagged, [batch], form);
      const terms = referenceTerms(batch, now, before, form, flagged.flagId);
      for (const name of ["ce", "post", "benign"] as const) {
        expect(terms[name]).toBeGreaterThan(0.01);
        expect((reports[0]?.terms[name] ?? Number.NaN) / terms[name], name).toBeCloseTo(1, 3);
      }
      expect((reports[0]?.loss ?? Number.NaN) / weighted(terms, form)).toBeCloseTo(1, 3);
    }
    flagged.dispose();
  });

  it("of Fixed-Pos asks for the flag after the prompt alone", async () => {
    const flagged = await moved(config, options);
    const now = await referenceOf(flagged.model, flagged.overlay);
    const sizes = { harmful: 2, benign: 0, placement: "fixed" } as const;
    const { reports } = await lossOf(flagged, [flagBatches(HARMFUL, [], sizes, new Random(8)).next()]);
    // -ln P(flag | prompt), the mean of both: neither onset nor response has a part in it.
    const expected = HARMFUL.map(({ prompt }) => -Math.log(nextAfter(now, prompt)[flagged.flagId] ?? 0));
    expect((reports[0]?.terms.ce ?? Number.NaN) / (expected.reduce((a, b) => a + b) / 2)).toBeCloseTo(1, 3);
    flagged.dispose();
  });
});

describe("batches of a half each", () => {
  it("have together the gradient of the whole, whatever padding each needs", async () => {
    const flagged = await moved(llama, {});
    const batch = flagBatches(HARMFUL, BENIGN, { harmful: 2, benign: 2 }, new Random(3)).next();
    const halves = [0, 1].map((i) => ({
      harmful: batch.harmful.slice(i, i + 1),
      benign: batch.benign.slice(i, i + 1),
    }));
    const [whole, parts] = [await lossOf(flagged, [batch]), await lossOf(flagged, halves)];
    const mean = parts.reports.reduce((sum, { loss }) => sum + loss / 2, 0);
    expect(mean).toBeCloseTo(whole.reports[0]?.loss ?? Number.NaN, 5);
    expect(relativeDifference(parts.gradient, whole.gradient)).toBeLessThan(1e-5);
    const tokens = parts.reports.reduce((sum, report) => sum + report.tokens, 0);
    expect(tokens).toBe(whole.reports[0]?.tokens);
    flagged.dispose();
  });
});

it("no flag stands before the least offset, but for Fixed-Pos", () => {
  const tokenizer = byteTokenizer();
  fc.assert(
    fc.property(
      fc.constantFrom(...PLACEMENTS),
      fc.nat(12),
      fc.array(fc.nat(20), { minLength: 1, maxLength: 12 }),
      fc.nat(),
      (placement, minOffset, lengths, seed) => {
        const examples = lengths.map((length) => ({ prompt: "a ", response: "b".repeat(length) }));
        const options = { maxResponse: 64, contextLength: 64, minOffset, placement };
        const { sequences, leftOut } = usableSequences(tokenizer, examples, "harmful", options);
        const least = placement === "fixed" ? 0 : minOffset;
        expect(leftOut).toBe(lengths.filter((length) => length <= least).length);
        const sizes = { harmful: 3, benign: 0, placement };
        for (const { onset, insertAt, response } of flagBatches(sequences, [], sizes, new Random(seed)).next()
          .harmful) {
          expect(onset).toBe(least);
          expect(insertAt).toBeGreaterThanOrEqual(least);
          expect(insertAt).toBeLessThan(response.length);
          if (placement === "fixed") expect(insertAt).toBe(0);
        }
      },
    ),
  );
});
