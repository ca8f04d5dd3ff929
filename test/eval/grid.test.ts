import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { axisNames, type GridAxis, gridPoints, parseAxis } from "../../src/eval/grid.js";
import { RED_FLAG_DEFAULTS } from "../../src/flag/train.js";

describe("an axis", () => {
  it("is a name and its numbers", () => {
    expect(parseAxis("benign=1,4,16")).toEqual({ name: "benign", values: [1, 4, 16] });
    expect(parseAxis("lr=2e-4")).toEqual({ name: "lr", values: [2e-4] });
    expect(parseAxis("ce= 0 , 1")).toEqual({ name: "ce", values: [0, 1] });
  });

  it("can be any number that training takes but the seed", () => {
    expect(axisNames()).toEqual(
      expect.arrayContaining(["ce", "post", "benign", "lr", "rank", "alpha", "minOffset", "steps", "clip"]),
    );
    for (const name of ["seed", "decay", "targets", "loss", "reduction", "placement"])
      expect(axisNames()).not.toContain(name);
  });

  it.each([
    "",
    "lr",
    "=1",
    "seed=1",
    "loss=1",
    "toString=1",
    "lr=",
    "lr=1,",
    "lr=x",
    "lr=Infinity",
    "lr=NaN",
  ])("'%s' is none", (text) => {
    expect(() => parseAxis(text)).toThrow(RangeError);
    expect(() => parseAxis(text)).toThrow(`'${text}'`);
  });

  it("has each value once", () => {
    expect(() => parseAxis("rank=4,8,4.0")).toThrow(/has 4 twice/);
  });
});

describe("a grid", () => {
  const axes = [
    { name: "benign", values: [1, 4] },
    { name: "lr", values: [1e-3, 1e-2, 1e-1] },
  ];

  it("sets weights in the loss and the rest beside it, over what is given, over the defaults", () => {
    const [point] = gridPoints([...axes, { name: "rank", values: [2] }], [7], {
      lr: 5,
      steps: 30,
      loss: { ce: 3, benign: 9 },
    });
    expect(point).toEqual({
      values: [1, 1e-3, 2],
      hyperparameters: {
        ...RED_FLAG_DEFAULTS,
        ...{ lr: 1e-3, steps: 30, rank: 2, seed: 7 },
        loss: { ...RED_FLAG_DEFAULTS.loss, ce: 3, benign: 1 },
      },
    });
  });

  it("sets what adversarial training takes by its full name", () => {
    const [point] = gridPoints(
      [
        { name: "steps", values: [9] },
        { name: "adversarial.steps", values: [3] },
      ],
      [0],
      { adversarial: { share: 0.25, steps: 8 } },
    );
    const { adversarial } = RED_FLAG_DEFAULTS;
    expect(point?.hyperparameters).toMatchObject({
      ...{ steps: 9, adversarial: { ...adversarial, share: 0.25, steps: 3 } },
    });
  });

  it("is seen whole under the first seed before any other", () => {
    const places = gridPoints(axes, [5, 2], {}).map(({ values, hyperparameters: { seed } }) => [
      ...values,
      seed,
    ]);
    const whole = [1, 4].flatMap((benign) => [1e-3, 1e-2, 1e-1].map((lr) => [benign, lr]));
    expect(places).toEqual([5, 2].flatMap((seed) => whole.map((values) => [...values, seed])));
  });

  it("has every combination once", () => {
    const weights = ["ce", "post", "benign"];
    const values = fc.uniqueArray(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 4 });
    const some = fc
      .tuple(fc.subarray(weights), fc.array(values, { minLength: 3, maxLength: 3 }))
      .map(([names, lists]): GridAxis[] => names.map((name, i) => ({ name, values: lists[i] ?? [] })));
    fc.assert(
      fc.property(some, fc.uniqueArray(fc.nat(9), { minLength: 1, maxLength: 3 }), (axes, seeds) => {
        const points = gridPoints(axes, seeds, {});
        const places = points.map(({ values, hyperparameters: { seed } }) => JSON.stringify([values, seed]));
        expect(places).toHaveLength(axes.reduce((count, axis) => count * axis.values.length, seeds.length));
        expect(new Set(places).size).toBe(places.length);
        for (const { values, hyperparameters } of points) {
          axes.forEach(({ name, values: all }, i) => {
            expect(all).toContain(values[i]);
            expect(hyperparameters.loss[name as "ce"]).toBe(values[i]);
          });
        }
      }),
    );
  });

  it("is refused before any work where a point is out of range", () => {
    expect(() => gridPoints([{ name: "rank", values: [4, 0] }], [0], {})).toThrow(/^rank must be/);
    expect(() => gridPoints([{ name: "adversarial.share", values: [0.5, 0.6] }], [0], {})).toThrow(
      /^adversarial\.share must be at most 0\.5/,
    );
    expect(() => gridPoints([{ name: "ce", values: [-1] }], [0], {})).toThrow(/^ce must be/);
    expect(() => gridPoints([...axes, { name: "lr", values: [1] }], [0], {})).toThrow(/two of 'lr'/);
  });
});
