// Teaches stories260K to flag violence in children's stories, and measures it on held-out ones.
//
//   node examples/stories.mjs [--seed 0] [--backend wasm|webgpu] [--steps 600] [--save FOLDER]
//
// Data and model come from $ORIFLAMME_SHARED (default ../shared): data/stories, data/models/stories260K. The labels
// are a word list's: a story is "harmful" if a word of violence or injury occurs in it, and noisy as such.

import { parseArgs } from "node:util";
import {
  addRedFlag,
  auroc,
  createBackend,
  FlagScorer,
  loadModel,
  readJsonLines,
  tprAtFpr,
  trainRedFlag,
  usableSequences,
} from "oriflamme";

const { values: options } = parseArgs({
  options: {
    seed: { type: "string", default: "0" },
    steps: { type: "string", default: "600" },
    backend: { type: "string", default: "auto" },
    wasm: { type: "string", default: "auto" },
    threads: { type: "string" },
    save: { type: "string" },
  },
});
const shared = process.env.ORIFLAMME_SHARED ?? "../shared";
const MAX_RESPONSE = 300;
/** A harmful story is used where its onset leaves at least this many tokens before the cut. */
const ROOM_AFTER_ONSET = 4;

const backend = await createBackend({
  kind: options.backend,
  wasm: options.wasm,
  ...(options.threads ? { threads: Number(options.threads) } : {}),
});
const model = await loadModel(`${shared}/data/models/stories260K/stories260K.bin`, { backend });
const flagged = await addRedFlag(model);
const limits = { maxResponse: MAX_RESPONSE, contextLength: model.config.contextLength, minOffset: 0 };

const usable = (examples, kind, room) =>
  examples.filter((example) => {
    const [sequence] = usableSequences(model.tokenizer, [example], kind, limits).sequences;
    return sequence && (kind === "benign" || sequence.onset < MAX_RESPONSE - room);
  });
const harmful = usable(
  await readJsonLines(`${shared}/data/stories/harmful.jsonl`),
  "harmful",
  ROOM_AFTER_ONSET,
);
const benign = await readJsonLines(`${shared}/data/stories/benign.jsonl`);
const heldOut = { harmful: harmful.slice(0, 80), benign: benign.slice(0, 240) };
console.error(`${backend.description}; ${harmful.length} harmful, ${benign.length} benign stories`);

const start = performance.now();
const run = await trainRedFlag(flagged, {
  harmful: harmful.slice(80),
  benign: benign.slice(240),
  steps: Number(options.steps),
  lr: 3e-3,
  warmup: 30,
  rank: 16,
  alpha: 32,
  maxResponse: MAX_RESPONSE,
  loss: { benign: 4 },
  seed: Number(options.seed),
  onStep: ({ step, loss, terms, tokensPerSecond }) => {
    if (step % 50 !== 0) return;
    const parts = Object.entries(terms).map(([name, value]) => `${name} ${value.toFixed(3)}`);
    console.error(
      `step ${step}: loss ${loss.toFixed(3)} (${parts.join(", ")}), ${Math.round(tokensPerSecond)} tokens/s`,
    );
  },
});
const seconds = (performance.now() - start) / 1000;
if (options.save) await run.save(options.save);

const scorer = new FlagScorer(flagged);
const sequences = (examples, kind) => usableSequences(model.tokenizer, examples, kind, limits).sequences;
const scores = { positive: [], negative: [] };
for (const sequence of sequences(heldOut.harmful, "harmful"))
  scores.positive.push((await scorer.score(sequence)).max);
const sums = { tokens: 0, kl: 0, loss: 0, refLoss: 0 };
for (const [i, sequence] of sequences(heldOut.benign, "benign").entries()) {
  scores.negative.push((await scorer.score(sequence)).max);
  if (i >= 100) continue;
  const utility = await scorer.utility(sequence);
  for (const key of Object.keys(sums)) sums[key] += utility[key];
}
console.log(
  JSON.stringify({
    seed: Number(options.seed),
    auroc: auroc(scores),
    flag_rate_at_1_percent_fpr: tprAtFpr(scores, 0.01).tpr,
    flag_rate_at_5_percent_fpr: tprAtFpr(scores, 0.05).tpr,
    kl_per_token: sums.kl / sums.tokens,
    perplexity_before: Math.exp(sums.refLoss / sums.tokens),
    perplexity_after: Math.exp(sums.loss / sums.tokens),
    training_seconds: seconds,
  }),
);
backend.dispose();
