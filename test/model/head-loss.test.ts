import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { RowOverlay } from "../../src/model/adapter.js";
import { head } from "../../src/model/forward.js";
import { type HeadInput, headCrossEntropy, headKl } from "../../src/model/head-loss.js";
import type { Overlay } from "../../src/model/lora.js";
import type { Model } from "../../src/model/model.js";
import { crossEntropy } from "../../src/ops/cross-entropy.js";
import { kl } from "../../src/ops/kl.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena, type Tensor } from "../../src/tensor.js";
import { BACKENDS } from "../backends.js";
import { baseline, llama, loudModel, randomIds } from "./tiny.js";

/** Of a size that chunks have their fewest rows, 64, so that these make two. No multiple of a vector. */
const VOCABULARY = 131_101;
const ROWS = 67;
const HIDDEN = 8;
const config = {
  ...llama,
  vocabSize: VOCABULARY,
  hiddenSize: HIDDEN,
  heads: 2,
  kvHeads: 1,
  layers: 1,
  tied: false,
};
/** One row of the model's is replaced, one is appended. */
const ROW_IDS = [5, VOCABULARY];
const WIDTH = VOCABULARY + 1;

const noise = (count: number, seed: number) => {
  const random = new Random(seed);
  return Float32Array.from({ length: count }, () => random.normal());
};
const HIDDEN_ROWS = noise(ROWS * HIDDEN, 1);
/** The reference's rows lie near, as they do in training. */
const REFERENCE_ROWS = HIDDEN_ROWS.map((x, i) => x + 0.1 * (noise(1, 100 + i)[0] ?? 0));
const OVERLAY_ROWS = { ids: ROW_IDS, input: noise(2 * HIDDEN, 2), output: noise(2 * HIDDEN, 3) };
const TARGETS = Uint32Array.from(randomIds(ROWS, VOCABULARY)).fill(VOCABULARY, 62, 65).fill(5, 65);
const WEIGHTS = noise(ROWS, 4).map((w, r) => (r % 5 === 3 ? 0 : w / ROWS));

/** What a loss leaves behind: its rows, and the gradients of hidden rows, head and overlay. */
type Results = Readonly<Record<"losses" | "hidden" | "head" | "rows", Float32Array>>;

type Loss = (tape: Tape, model: Model, input: HeadInput, reference: HeadInput) => Tensor;

const chunked: Record<string, Loss> = {
  "cross-entropy": (tape, model, input) =>
    headCrossEntropy(tape, model, input, tape.from(TARGETS), tape.from(WEIGHTS)),
  "divergence, forward": (tape, model, input, reference) =>
    headKl(tape, model, input, reference, tape.from(WEIGHTS), "forward"),
  "divergence, reverse": (tape, model, input, reference) =>
    headKl(tape, model, input, reference, tape.from(WEIGHTS), "reverse"),
};

const whole: Record<string, Loss> = {
  "cross-entropy": (tape, model, { hidden, overlay }) =>
    crossEntropy(tape, head(tape, model, hidden, overlay), tape.from(TARGETS), {
      weights: tape.from(WEIGHTS),
    }),
  "divergence, forward": (tape, model, input, reference) => wholeKl(tape, model, input, reference, "forward"),
  "divergence, reverse": (tape, model, input, reference) => wholeKl(tape, model, input, reference, "reverse"),
};

function wholeKl(
  tape: Tape,
  model: Model,
  input: HeadInput,
  reference: HeadInput,
  direction: "forward" | "reverse",
): Tensor {
  const logits = head(tape, model, input.hidden, input.overlay);
  const refLogits = head(new Tape(tape.arena, false), model, reference.hidden, reference.overlay);
  return kl(tape, logits, refLogits, { weights: tape.from(WEIGHTS), direction });
}

/** Softmax of the logits of one hidden row, in float64. */
function probabilities(head: Float32Array, rows: Float32Array, hidden: Float32Array, r: number) {
  const dot = (w: Float32Array, at: number) => {
    let sum = 0;
    for (let i = 0; i < HIDDEN; i++) sum += (w[at + i] ?? 0) * (hidden[r * HIDDEN + i] ?? 0);
    return sum;
  };
  const p = new Float64Array(WIDTH);
  for (let c = 0; c < VOCABULARY; c++) p[c] = dot(head, c * HIDDEN);
  for (const [i, id] of ROW_IDS.entries()) p[id] = dot(rows, i * HIDDEN);
  const most = p.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (let c = 0; c < WIDTH; c++) sum += p[c] = Math.exp((p[c] ?? 0) - most);
  return p.map((value) => value / sum);
}

/** Losses in float64, and the slope of each by each of its logits, before its weight. */
const formulas: Record<string, (p: Float64Array, q: Float64Array, row: number) => [number, Float64Array]> = {
  "cross-entropy": (p, _, row) => {
    const target = TARGETS[row] ?? 0;
    return [-Math.log(p[target] ?? 0), p.map((value, c) => value - (c === target ? 1 : 0))];
  },
  "divergence, forward": (p, q) => {
    const ratio = p.map((value, c) => Math.log(value / (q[c] ?? 0)));
    const loss = ratio.reduce((sum, value, c) => sum + value * (p[c] ?? 0), 0);
    return [loss, p.map((value, c) => value * ((ratio[c] ?? 0) - loss))];
  },
  "divergence, reverse": (p, q) => {
    const loss = q.reduce((sum, value, c) => sum + value * Math.log(value / (p[c] ?? 0)), 0);
    return [loss, p.map((value, c) => value - (q[c] ?? 0))];
  },
};

const rootMeanSquare = (x: ArrayLike<number>) =>
  Math.sqrt(Array.prototype.reduce.call(x, (sum, v) => (sum as number) + v * v, 0) as number) /
  Math.sqrt(x.length);

/** The largest departure, in root mean squares of what is wanted. */
function departure(got: ArrayLike<number>, want: ArrayLike<number>): number {
  expect(got.length).toBe(want.length);
  let most = 0;
  for (let i = 0; i < want.length; i++) {
    most = Math.max(most, Math.abs((got[i] ?? Number.NaN) - (want[i] ?? 0)));
  }
  return most / rootMeanSquare(want);
}

/** SwiftShader takes 8 s for one of these; what differs between the rest is tested with the ops. */
const namesFor = (backend: string) => Object.keys(chunked).slice(0, backend === "webgpu" ? 2 : undefined);

describe.each(BACKENDS)(
  "losses through the head, a chunk at a time: $name",
  ({ name: backendName, create, slack }) => {
    let backend: Backend;
    let model: Model;
    let overlay: Overlay;
    beforeAll(async () => {
      backend = await create();
      model = await loudModel(backend, config);
      overlay = new RowOverlay(model, OVERLAY_ROWS);
    });
    afterAll(() => backend?.dispose());

    async function run(loss: Loss): Promise<{ results: Results; peak: number }> {
      const arena = new Arena(backend, 1 << 27);
      const tape = new Tape(arena);
      const hidden = tape.from(HIDDEN_ROWS, [ROWS, HIDDEN]);
      const reference = tape.from(REFERENCE_ROWS, [ROWS, HIDDEN]);
      const leaves = [hidden, model.weight("head.weight"), overlay.rows?.output as Tensor];
      for (const leaf of leaves) leaf.requiresGrad = true;
      const losses = loss(tape, model, { hidden, overlay }, { hidden: reference, overlay });
      tape.backward();
      const { peak } = arena;
      const read = [losses, ...leaves.map((leaf) => tape.grad(leaf))].map((x) => x.read());
      const [values, dHidden, dHead, dRows] = (await Promise.all(read)) as Float32Array[];
      for (const leaf of leaves) leaf.grad = undefined;
      arena.dispose();
      return {
        results: { losses: values, hidden: dHidden, head: dHead, rows: dRows } as Results,
        peak,
      };
    }

    // So wide a vocabulary is left out of the software adapter; the float64 cases above run on it.
    it.skipIf(backendName === "webgpu").each(Object.keys(chunked))(
      "%s: the same as whole, in the memory of one chunk",
      async (name) => {
        const [parts, all] = [await run(chunked[name] as Loss), await run(whole[name] as Loss)];
        // 64 rows of logits for each distribution, the head's gradient, and what is small.
        const distributions = name === "cross-entropy" ? 1 : 2;
        const needed = distributions * 64 * WIDTH * 4 + VOCABULARY * HIDDEN * 4;
        expect(parts.peak).toBeLessThan(1.001 * needed);
        expect(all.peak).toBeGreaterThan(distributions * ROWS * WIDTH * 4);
        // A chunk's rows may be multiplied in another order, which costs logits of about 5 their last digit, 5e-7, and
        // what is summed over 131102 of them some more.
        for (const [r, loss] of parts.results.losses.entries()) {
          expect(Math.abs(loss - (all.results.losses[r] ?? Number.NaN)), `loss of ${r}`).toBeLessThan(2e-5);
        }
        for (const key of ["hidden", "head", "rows"] as const) {
          expect(departure(parts.results[key], all.results[key]), key).toBeLessThan(2e-4);
        }
      },
    );

    it.each(namesFor(backendName))("%s: what the formulas give in float64", async (name) => {
      const { results } = await run(chunked[name] as Loss);
      const headWeight = await model.weight("head.weight").read();
      const { output } = OVERLAY_ROWS;
      // The borders of both chunks, and rows whose target is the replaced or the appended one.
      for (const r of [0, 62, 63, 64, 66]) {
        const p = probabilities(headWeight, output, HIDDEN_ROWS, r);
        const q = probabilities(headWeight, output, REFERENCE_ROWS, r);
        const [loss, slope] = (formulas[name] as (typeof formulas)[string])(p, q, r);
        // f32 logits of about 5, in a sum of 131102 probabilities: 1e-6 of a cross-entropy of about 14.
        expect(Math.abs((results.losses[r] ?? Number.NaN) - loss), `loss of ${r}`).toBeLessThan(2e-5 * slack);
        const want = Float64Array.from({ length: HIDDEN }, (_, i) => {
          let sum = 0;
          for (let c = 0; c < WIDTH; c++) {
            const row = ROW_IDS.indexOf(c);
            const w = row < 0 ? headWeight[c * HIDDEN + i] : output[row * HIDDEN + i];
            sum += (slope[c] ?? 0) * (w ?? 0);
          }
          return (WEIGHTS[r] ?? 0) * sum;
        });
        const got = results.hidden.subarray(r * HIDDEN, (r + 1) * HIDDEN);
        if (WEIGHTS[r] === 0) expect([...got]).toEqual(new Array(HIDDEN).fill(0));
        else expect(departure(got, want), `gradient of ${r}`).toBeLessThan(1e-3 * slack);
      }
    });
  },
);

describe("a loss that writes over its logits", () => {
  it("refuses those that have a gradient, and makes 0 of rows that count for nothing, whatever they hold", async () => {
    const backend = await baseline();
    const tape = new Tape(new Arena(backend));
    const values = Float32Array.of(1, Number.NaN, 2, 3, 4, Number.POSITIVE_INFINITY);
    const losses = {
      crossEntropy: (logits: Tensor) =>
        crossEntropy(tape, logits, tape.from(Uint32Array.of(0, 1)), { weights: tape.filled([2], 0) }),
      kl: (logits: Tensor) => kl(tape, logits, tape.filled([2, 3], 1), { weights: tape.filled([2], 0) }),
    };
    for (const [name, loss] of Object.entries(losses)) {
      const logits = tape.from(values, [2, 3]);
      loss(logits);
      expect(logits.grad).toBe(logits);
      expect(await logits.read()).toEqual(new Float32Array(6));
      expect(() => loss(logits)).toThrow(`${name}: logits (2, 3) has a gradient, expected none`);
    }
  });
});
