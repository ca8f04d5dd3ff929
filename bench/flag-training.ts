/**
 * What training the red flag costs against plain fine-tuning: tokens a second of the same adapter on the same
 * conversations, once with the red-flag loss (the pass of the reference included) and once with the next-token
 * cross-entropy of the responses. The two take turns, step by step. Then each part of the flag's step alone, on the
 * same rows: the pass of the model with its backward, the pass of the reference, and what each term does with the head.
 *
 *   node bench/run.mjs bench/flag-training.ts [--steps N] [--no-revectorize] [--json]
 */

import { parseArgs } from "node:util";
import { createBackend } from "../src/backends/create.js";
import { benchLlama, matrixWeights } from "../src/cli/bench/llama.js";
import { noiseIds } from "../src/cli/bench/noise.js";
import { type BenignSequence, type FlagBatch, layout, redFlagLoss } from "../src/flag/loss.js";
import { addRedFlag, type FlaggedModel } from "../src/flag/vocab.js";
import { linearLayers } from "../src/model/config.js";
import { forward } from "../src/model/forward.js";
import { headCrossEntropy, headKl } from "../src/model/head-loss.js";
import { embedding } from "../src/ops/embedding.js";
import { Tape } from "../src/tape.js";
import { Arena, type Tensor } from "../src/tensor.js";
import { type Loss, train } from "../src/train/trainer.js";

/** dim, layers, heads, kv heads, ffn, vocabulary: stories260K, the 15M shape, and one of `bench train`. */
const SHAPES = [
  [64, 5, 8, 4, 172, 512],
  [288, 6, 6, 6, 768, 32000],
  [512, 8, 8, 8, 1376, 8192],
] as const;
const [PROMPT, RESPONSE, EACH, RANK] = [32, 224, 4, 16];
const OPTIONS = { lr: 1e-4, warmup: 0, decay: "constant", accumulate: 1, clip: 1 } as const;

const { values: options } = parseArgs({
  allowNegative: true,
  options: {
    steps: { type: "string", default: "12" },
    revectorize: { type: "boolean", default: true },
    json: { type: "boolean", default: false },
  },
});

/** Next-token cross-entropy of the responses under the adapter. */
function responseLoss({ model, overlay }: FlaggedModel): Loss<readonly BenignSequence[]> {
  return (tape, batch, scale) => {
    const ids = Uint32Array.from(
      batch.flatMap(({ prompt, response }) => [...prompt, ...response.slice(0, -1)]),
    );
    const width = ids.length / batch.length;
    const rows = batch.flatMap(({ prompt, response }, s) =>
      response.map((_, t) => s * width + prompt.length - 1 + t),
    );
    const targets = tape.from(Uint32Array.from(batch.flatMap(({ response }) => response)));
    const weights = tape.from(new Float32Array(rows.length).fill(scale / rows.length));
    const hidden = forward(tape, model, ids, { batch: batch.length, overlay });
    const input = { hidden: embedding(tape, hidden, tape.from(Uint32Array.from(rows))), overlay };
    const losses = headCrossEntropy(tape, model, input, targets, weights);
    return async () => {
      const values = await losses.read();
      return { loss: values.reduce((sum, x) => sum + x / values.length, 0), terms: {}, tokens: ids.length };
    };
  };
}

/** Median milliseconds of each part of a step of the red-flag loss. */
async function partsOf({ model, overlay, reference, flagId }: FlaggedModel, batch: FlagBatch, turns: number) {
  const at = layout(batch, flagId);
  const { sequences } = at;
  const arena = new Arena(model.backend);
  /** Rows of a residual stream that want a gradient, as the head of a term gets them. */
  const rows = (tape: Tape, count: number): Tensor => {
    const hidden = tape.filled([count, model.config.hiddenSize], 0.5);
    hidden.requiresGrad = true;
    return hidden;
  };
  const divergence = (count: number) => (tape: Tape) => {
    const twins = { hidden: tape.filled([count, model.config.hiddenSize], 0.5), overlay: reference };
    const weights = tape.filled([count], 1 / count);
    headKl(tape, model, { hidden: rows(tape, count), overlay }, twins, weights, "forward");
  };
  const parts = {
    model: (tape) => {
      const hidden = forward(tape, model, at.ids, { batch: sequences, overlay });
      tape.grad(hidden);
    },
    reference: (tape) => {
      forward(new Tape(tape.arena, false), model, at.refIds, { batch: sequences, overlay: reference });
    },
    ce: (tape) => {
      const targets = tape.from(new Uint32Array(at.ce.length).fill(flagId));
      const weights = tape.filled([at.ce.length], 1 / at.ce.length);
      headCrossEntropy(tape, model, { hidden: rows(tape, at.ce.length), overlay }, targets, weights);
    },
    post: divergence(at.post),
    benign: divergence(at.kl.length - at.post),
  } satisfies Record<string, (tape: Tape) => void>;
  const times = Object.fromEntries(Object.keys(parts).map((name) => [name, [] as number[]]));
  for (let i = 0; i < 2 + turns; i++) {
    for (const [name, part] of Object.entries(parts)) {
      arena.reset();
      const tape = new Tape(arena);
      const start = performance.now();
      part(tape);
      tape.backward();
      await model.backend.synchronize();
      if (i >= 2) times[name]?.push(performance.now() - start);
    }
  }
  arena.dispose();
  return Object.fromEntries(Object.entries(times).map(([name, list]) => [name, median(list)]));
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] as number;
}

for (const shape of SHAPES) {
  const backend = await createBackend({ kind: "wasm", threads: 1, revectorize: options.revectorize });
  const model = await benchLlama(backend, shape, PROMPT + RESPONSE + 1);
  const flagged = await addRedFlag(model);
  const adapter = flagged.attach({ rank: RANK, alpha: RANK, targets: linearLayers(model.config) }, 0);
  const ids = noiseIds(2 * EACH * (PROMPT + RESPONSE), shape[5], 0);
  const conversations = Array.from({ length: 2 * EACH }, (_, i) => {
    const own = Array.from(ids.subarray(i * (PROMPT + RESPONSE), (i + 1) * (PROMPT + RESPONSE)));
    return { prompt: own.slice(0, PROMPT), response: own.slice(PROMPT) };
  });
  const batch: FlagBatch = {
    // The flag's place is uniform in training; here it steps through the response.
    harmful: conversations
      .slice(0, EACH)
      .map((c, i) => ({ ...c, onset: 0, insertAt: ((i + 0.5) * RESPONSE) / EACH })),
    benign: conversations.slice(EACH),
  };
  const steps = { ...OPTIONS, steps: Number.MAX_SAFE_INTEGER };
  const runs = {
    flag: train(adapter.parameters, redFlagLoss(flagged), { next: () => batch, state: null }, steps),
    plain: train(
      adapter.parameters,
      responseLoss(flagged),
      { next: () => conversations, state: null },
      steps,
    ),
  };
  const seconds: Record<keyof typeof runs, number[]> = { flag: [], plain: [] };
  for (let i = 0; i < 2 + Number(options.steps); i++) {
    for (const name of i % 2 ? (["flag", "plain"] as const) : (["plain", "flag"] as const)) {
      const start = performance.now();
      await runs[name].next();
      if (i >= 2) seconds[name].push((performance.now() - start) / 1000);
    }
  }
  const parts = await partsOf(flagged, batch, Number(options.steps));
  for (const run of Object.values(runs)) await run.return(undefined);
  const tokens = 2 * EACH * (PROMPT + RESPONSE - 1);
  const rates = { flag: tokens / median(seconds.flag), plain: tokens / median(seconds.plain) };
  const line = { shape, variant: backend.variant, ...rates, cost: rates.plain / rates.flag, parts };
  if (options.json) console.log(JSON.stringify(line));
  else {
    const whole = 1000 * median(seconds.flag);
    const share = (name: string) => `${name} ${((100 * (parts[name] as number)) / whole).toFixed(0)} %`;
    console.log(
      `${shape.join("×")} (${(matrixWeights(shape) / 1e6).toFixed(1)} million weights): plain ${rates.plain.toFixed(0)} tokens/s, ` +
        `red flag ${rates.flag.toFixed(0)}, ${line.cost.toFixed(2)}×; of ` +
        `its ${whole.toFixed(0)} ms: ${Object.keys(parts).map(share).join(", ")}`,
    );
  }
  model.dispose();
  backend.dispose();
}
