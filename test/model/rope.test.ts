import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { RopeScaling } from "../../src/model/config.js";
import { Model } from "../../src/model/model.js";
import { ropeFrequencies } from "../../src/model/rope-frequencies.js";
import { Parameters } from "../../src/tensor.js";
import { baseline, gpt2, llama } from "./tiny.js";

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
});
