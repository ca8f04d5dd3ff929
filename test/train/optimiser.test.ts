import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena, Parameters } from "../../src/tensor.js";
import { AdamW } from "../../src/train/optimiser.js";
import { learningRate, type Schedule } from "../../src/train/schedule.js";
import { BACKENDS } from "../backends.js";
import { maxDifference } from "../golden.js";

const SHAPES = new Map([
  ["a", [37]],
  ["b", [5, 13]],
]);

describe.each(BACKENDS.filter(({ name }) => name.startsWith("wasm")))("AdamW on $name", ({ create }) => {
  it.each([{ weightDecay: 0 }, { weightDecay: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6 }])(
    "with %j is the float64 formula over twenty steps, clipped",
    async (given) => {
      const { beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay } = given;
      const backend = await create();
      const arena = new Arena(backend, 1 << 16);
      const tape = new Tape(arena, false);
      const random = new Random(3);
      const parameters = new Parameters(backend, SHAPES);
      const expected = new Map<string, { p: number[]; m: number[]; v: number[] }>();
      for (const [name, tensor] of parameters.entries()) {
        const start = Float32Array.from({ length: tensor.size }, () => random.normal());
        tensor.write(start);
        expected.set(name, { p: [...start], m: [...start].fill(0), v: [...start].fill(0) });
      }
      const optimiser = new AdamW(parameters, given);
      const clip = 5;
      let clipped = 0;
      for (let step = 1; step <= 20; step++) {
        const lr = 0.01 * step;
        // Every other gradient is longer than the clip.
        const size = step % 2 === 0 ? 2 : 0.1;
        const gradients = new Map<string, Float32Array>();
        let square = 0;
        for (const [name, tensor] of parameters.entries()) {
          const gradient = Float32Array.from({ length: tensor.size }, () => size * random.normal());
          optimiser.gradients.get(name).write(gradient);
          gradients.set(name, gradient);
          for (const value of gradient) square += value * value;
        }
        const norm = await optimiser.gradientNorm(tape);
        expect(norm / Math.sqrt(square)).toBeCloseTo(1, 5);
        const scale = norm > clip ? clip / norm : 1;
        if (scale < 1) clipped++;
        optimiser.step(tape, lr, scale);

        for (const [name, { p, m, v }] of expected) {
          for (const i of p.keys()) {
            const g = (gradients.get(name)?.[i] ?? 0) * Math.min(1, clip / Math.sqrt(square));
            m[i] = beta1 * (m[i] ?? 0) + (1 - beta1) * g;
            v[i] = beta2 * (v[i] ?? 0) + (1 - beta2) * g * g;
            const rate =
              (m[i] ?? 0) / (1 - beta1 ** step) / (Math.sqrt((v[i] ?? 0) / (1 - beta2 ** step)) + eps);
            p[i] = (p[i] ?? 0) * (1 - lr * weightDecay) - lr * rate;
          }
          expect(maxDifference(await parameters.get(name).read(), p), `${name}, step ${step}`).toBeLessThan(
            2e-5,
          );
        }
        const left = await optimiser.gradients.all.read();
        expect(left.every((value) => value === 0)).toBe(true);
      }
      expect(clipped).toBe(10);
      expect(optimiser.steps).toBe(20);
      // The padding between the tensors stays zero, so that norms and decay never see it.
      const all = await parameters.all.read();
      expect(all.slice(37, 64).every((value) => value === 0)).toBe(true);
      backend.dispose();
    },
  );
});

describe("the learning rate", () => {
  const schedules: fc.Arbitrary<Schedule> = fc.record({
    lr: fc.double({ min: 1e-6, max: 1, noNaN: true }),
    steps: fc.integer({ min: 1, max: 500 }),
    warmup: fc.integer({ min: 0, max: 60 }),
    decay: fc.constantFrom("cosine", "constant"),
  });

  it("rises in a line, then falls along half a cosine or stays", () => {
    fc.assert(
      fc.property(schedules, (schedule) => {
        const { lr, steps, warmup, decay } = schedule;
        const rates = Array.from({ length: steps }, (_, step) => learningRate(schedule, step));
        for (const [step, rate] of rates.entries()) {
          expect(rate).toBeGreaterThan(0);
          expect(rate).toBeLessThanOrEqual(lr * (1 + 1e-12));
          const progress = (step - warmup) / (steps - warmup);
          const after = decay === "constant" ? lr : (lr * (1 + Math.cos(Math.PI * progress))) / 2;
          expect(rate / lr).toBeCloseTo((step < warmup ? (lr * (step + 1)) / warmup : after) / lr, 9);
        }
        if (warmup < steps) expect(rates[warmup]).toBeCloseTo(lr, 9);
      }),
    );
  });
});
