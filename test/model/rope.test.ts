import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { RopeScaling } from "../../src/model/config.js";
import { Model } from "../../src/model/model.js";
import { ropeFrequencies } from "../../src/model/rope-frequencies.js";
import { passTables } from "../../src/model/rope-tables.js";
import { Tape } from "../../src/tape.js";
import { Arena, Parameters } from "../../src/tensor.js";
import { baseline, gpt2, llama, phi3 } from "./tiny.js";

const headDims = fc.integer({ min: 1, max: 64 }).map((half) => 2 * half);
const thetas = fc.double({ min: 2, max: 1e6, noNaN: true });
const factors = fc.double({ min: 1, max: 64, noNaN: true });

describe("frequencies", () => {
  it("are theta^(-2i/d), divided by a linear factor", () => {
    fc.assert(
      fc.property(headDims, thetas, factors, (headDim, theta, factor) => {
        const plain = ropeFrequencies(headDim, theta, { kind: "none" }, 1);
        const linear = ropeFrequencies(headDim, theta, { kind: "linear", factor }, 1);
        expect(plain).toHaveLength(headDim / 2);
        for (const [i, frequency] of plain.entries()) {
          expect(frequency / Math.exp((Math.log(theta) * -2 * i) / headDim)).toBeCloseTo(1, 10);
          expect(linear[i]).toBe(frequency / factor);
        }
      }),
    );
  });

  it("of Llama 3.1 go by wavelength", () => {
    fc.assert(
      fc.property(
        headDims,
        thetas,
        factors,
        fc.integer({ min: 16, max: 8192 }),
        (headDim, theta, factor, old) => {
          const [low, high] = [1, 4];
          const scaling = {
            kind: "llama3",
            factor,
            lowFreqFactor: low,
            highFreqFactor: high,
            originalContextLength: old,
          };
          const found = ropeFrequencies(headDim, theta, scaling as RopeScaling, 1);
          for (const [i, value] of found.entries()) {
            const frequency = theta ** ((-2 * i) / headDim);
            const wavelength = (2 * Math.PI) / frequency;
            const smooth = (old / wavelength - low) / (high - low);
            let expected = (1 - smooth) * (frequency / factor) + smooth * frequency;
            if (wavelength < old / high) expected = frequency;
            if (wavelength > old / low) expected = frequency / factor;
            expect(value / expected).toBeCloseTo(1, 10);
          }
        },
      ),
    );
  });
});

describe("frequencies of a head of 16, theta 10000, as transformers 5.18 computes them", () => {
  const longrope = {
    kind: "longrope",
    shortFactors: [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    longFactors: [2, 3, 4, 5, 6, 7, 8, 9],
    originalContextLength: 32,
    attentionFactor: 1,
  } as const;
  const dynamic = { kind: "dynamic", factor: 4, originalContextLength: 64 } as const;
  const yarn = { kind: "yarn", factor: 4, originalContextLength: 128, attentionFactor: 1 } as const;
  it.each<[string, RopeScaling, number, number[]]>([
    [
      "llama3",
      { kind: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContextLength: 64 },
      1,
      [1, 0.2443846, 0.01304226, 0.003952847, 0.00125, 0.0003952847, 0.000125, 3.952847e-5],
    ],
    [
      "dynamic, within the context",
      dynamic,
      64,
      [1, 0.3162278, 0.1, 0.03162278, 0.01, 0.003162278, 0.001, 0.0003162278],
    ],
    [
      "dynamic, past it",
      dynamic,
      100,
      [1, 0.267223, 0.07140812, 0.01908189, 0.00509912, 0.001362602, 0.0003641186, 9.730085e-5],
    ],
    [
      "yarn",
      { ...yarn, betaFast: 32, betaSlow: 1, truncate: true },
      1,
      [1, 0.2371708, 0.05, 0.007905695, 0.0025, 0.0007905695, 0.00025, 7.905695e-5],
    ],
    [
      "yarn between pairs",
      { ...yarn, betaFast: 8, betaSlow: 0.5, truncate: false },
      1,
      [1, 0.2977012, 0.0629983, 0.01007351, 0.0025, 0.0007905695, 0.00025, 7.905695e-5],
    ],
    [
      "longrope, short",
      longrope,
      32,
      [1, 0.2874798, 0.08333334, 0.02432521, 0.007142857, 0.002108185, 0.000625, 0.0001860163],
    ],
    [
      "longrope, long",
      longrope,
      33,
      [0.5, 0.1054092, 0.025, 0.006324556, 0.001666667, 0.000451754, 0.000125, 3.513642e-5],
    ],
  ])("%s", (_, scaling, length, expected) => {
    const found = ropeFrequencies(16, 10000, scaling, length);
    // They are f32 there, and printed with seven digits.
    for (const [i, value] of expected.entries()) {
      expect(Math.abs((found[i] ?? 0) / value - 1), `${i}`).toBeLessThan(1e-6);
    }
    expect(found).toHaveLength(expected.length);
  });
});

describe("tables", () => {
  it("hold the cosines and sines of every position, and grow when they must", async () => {
    const backend = await baseline();
    const config = { ...llama, contextLength: 5000 };
    const model = new Model(config, new Parameters(backend, new Map([["none", [1]]])), null);
    const short = model.ropeTables(3);
    expect(model.ropeTables(3)).toBe(short);
    const long = model.ropeTables(4999);
    expect(long.length).toBeGreaterThanOrEqual(4999);
    const frequencies = ropeFrequencies(4, 100, { kind: "none" }, 1);
    for (const tables of [short, long]) {
      const [cos, sin] = [await tables.cos.read(), await tables.sin.read()];
      for (const position of [0, 1, 700, tables.length - 1]) {
        for (const [i, frequency] of frequencies.entries()) {
          expect(cos[2 * position + i]).toBeCloseTo(Math.cos(position * frequency), 6);
          expect(sin[2 * position + i]).toBeCloseTo(Math.sin(position * frequency), 6);
        }
      }
    }
    const learned = new Model(gpt2, new Parameters(backend, new Map([["none", [1]]])), null);
    expect(() => learned.ropeTables(1)).toThrow(TypeError);
  });

  it("of short and long sequences lie side by side where they differ", async () => {
    const backend = await baseline();
    const model = new Model(phi3, new Parameters(backend, new Map([["none", [1]]])), null);
    const [short, long] = [model.ropeTables(8), model.ropeTables(9)];
    expect(short.length).toBe(8);
    expect(model.ropeTables(3)).toBe(short);
    expect(model.ropeTables(24)).toBe(long);
    expect(model.ropeTables(5)).toBe(short);
    // Pair 1 of 2 at theta 100 turns by 1/10, by its factors less; all times the attention's factor.
    const [cos, longCos] = [await short.cos.read(), await long.cos.read()];
    expect(short.cos.shape).toEqual([8, 2]);
    expect(cos[2 * 7 + 1]).toBeCloseTo(1.24 * Math.cos(0.7 / 1.3), 6);
    expect(longCos[2 * 7 + 1]).toBeCloseTo(1.24 * Math.cos(0.7 / 4), 6);
  });

  it("of dynamic scaling past the context are made for the pass", async () => {
    const backend = await baseline();
    const scaling = { kind: "dynamic", factor: 3, originalContextLength: 8 } as const;
    const config = { ...llama, position: { kind: "rope", theta: 100, scaling } } as const;
    const model = new Model(config, new Parameters(backend, new Map([["none", [1]]])), null);
    const before = backend.memory().uses.tables;
    const tape = new Tape(new Arena(backend));
    expect(passTables(tape, model, 3, 5, 8).first).toBe(0);
    const { cos, first } = passTables(tape, model, 10, 2, 12);
    expect([first, cos.shape]).toEqual([10, [2, 2]]);
    const frequency = ropeFrequencies(4, 100, scaling, 12)[1] ?? 0;
    expect((await cos.read())[3]).toBeCloseTo(Math.cos(11 * frequency), 6);
    expect(backend.memory().uses.tables).toBe(before);
  });
});
