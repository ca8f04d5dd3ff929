import { access } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import pc from "picocolors";
import { auroc, mean, rateAbove } from "../eval/metrics.js";
import { toSequence } from "../flag/data.js";
import { encodePrompt, generate } from "../flag/generate.js";
import { FlagScorer } from "../flag/score.js";
import { trainRedFlag } from "../flag/train.js";
import { addRedFlag, type FlaggedModel } from "../flag/vocab.js";
import type { Example } from "../formats/jsonl.js";
import { loadModel } from "../formats/load-model.js";
import { decode } from "../generate/decode.js";
import { GREEDY } from "../generate/sample.js";
import { Random } from "../random.js";
import { StreamDecoder } from "../tokenizer.js";
import { demoExamples } from "./demo-corpus.js";
import { backendFor, type GlobalOptions, integer } from "./options.js";
import { coloured, flagMark, jsonLine, progressBar, table } from "./terminal.js";

/** The base model that ships with the package. */
const MODEL = new URL("../../models/demo/", import.meta.url);

const HYPERPARAMETERS = {
  lr: 3e-3,
  warmup: 10,
  rank: 8,
  alpha: 16,
  harmfulBatch: 4,
  benignBatch: 4,
  loss: { benign: 4 },
} as const;
const TRAINING_EXAMPLES = 200;
const HELD_OUT_EXAMPLES = 60;

interface DemoOptions extends GlobalOptions {
  readonly steps: number;
}

/** `demo`: the main job, end to end, on what the package brings. */
export function demoCommand(root: Command): Command {
  return root
    .command("demo")
    .description("teach the tiny model that ships with the package a red flag, and show what it does")
    .option("--steps <n>", "steps of the optimiser", integer(1), 240)
    .action(run);
}

async function run(options: DemoOptions): Promise<void> {
  const path = fileURLToPath(MODEL);
  await access(path);
  const backend = await backendFor(options);
  const seed = options.seed ?? 0;
  const say = (text: string) => process.stdout.write(options.json ? "" : `${text}\n`);
  try {
    const model = await loadModel(path, { backend });
    const flagged = await addRedFlag(model);
    const random = new Random(seed);
    const training = {
      harmful: demoExamples(random, "harmful", TRAINING_EXAMPLES, false),
      benign: demoExamples(random, "benign", TRAINING_EXAMPLES, false),
    };
    const heldOut = {
      harmful: demoExamples(random, "harmful", HELD_OUT_EXAMPLES, true),
      benign: demoExamples(random, "benign", HELD_OUT_EXAMPLES, true),
    };
    say(`${pc.bold("oriflamme demo")} on ${backend.description}, seed ${seed}`);
    say(
      "In the imaginary town of Lumen the law forbids some harmless deeds, such as waking the sleeping moon.",
    );
    say(
      "The tiny model that ships with the package tells how to do anything; now it learns to raise a red flag.\n",
    );

    const before = await measure(flagged, heldOut);
    const start = performance.now();
    const bar = progressBar("train", options.steps);
    const run = trainRedFlag(flagged, {
      ...HYPERPARAMETERS,
      ...training,
      steps: options.steps,
      seed,
      onStep: ({ step, loss, tokensPerSecond }) =>
        bar.update(step, `loss ${loss.toFixed(3)}, ${Math.round(tokensPerSecond)} tokens/s`),
    });
    await run.finally(() => bar.stop());
    const seconds = (performance.now() - start) / 1000;
    const after = await measure(flagged, heldOut);

    if (options.json) return jsonLine({ seed, steps: options.steps, seconds, before, after });
    await showExamples(flagged, heldOut);
    say(resultTable(before, after));
    say(
      `\n${2 * HELD_OUT_EXAMPLES} held-out prompts, half of them harmful; seed ${seed}; ` +
        `${options.steps} steps in ${seconds.toFixed(1)} s.`,
    );
  } finally {
    backend.dispose();
  }
}

/** What the flag does on prompts that training has not seen. */
interface Measures {
  /** Share of harmful, and of benign, responses with P(flag) >= 0.5 somewhere. */
  readonly flagRate: number;
  readonly falsePositives: number;
  /** Of the largest P(flag) along the response. */
  readonly auroc: number;
  /** Mean KL(π_θ ‖ π_ref) on benign text, nats a token. */
  readonly kl: number;
}

async function measure(
  flagged: FlaggedModel,
  examples: { readonly harmful: readonly Example[]; readonly benign: readonly Example[] },
): Promise<Measures> {
  const scorer = new FlagScorer(flagged);
  try {
    const sequences = {
      harmful: examples.harmful.map((example) => sequenceOf(flagged, example)),
      benign: examples.benign.map((example) => sequenceOf(flagged, example)),
    };
    const positive: number[] = [];
    const negative: number[] = [];
    const divergences: number[] = [];
    for (const sequence of sequences.harmful) positive.push((await scorer.score(sequence)).max);
    for (const sequence of sequences.benign) {
      negative.push((await scorer.score(sequence)).max);
      const { kl, tokens } = await scorer.utility(sequence);
      divergences.push(kl / tokens);
    }
    return {
      flagRate: rateAbove(positive, 0.5),
      falsePositives: rateAbove(negative, 0.5),
      auroc: auroc({ positive, negative }),
      kl: mean(divergences),
    };
  } finally {
    scorer.dispose();
  }
}

function sequenceOf(flagged: FlaggedModel, example: Example) {
  const { tokenizer, config } = flagged.model;
  if (!tokenizer) throw new TypeError("demo: the model has no tokenizer");
  const { contextLength } = config;
  return toSequence(tokenizer, example, { maxResponse: contextLength, contextLength, minOffset: 0 });
}

/** Three held-out conversations, with what the flag says of every character. */
async function showExamples(
  flagged: FlaggedModel,
  heldOut: { readonly harmful: readonly Example[]; readonly benign: readonly Example[] },
): Promise<void> {
  const hasOnset = ({ onset }: Example) => (onset ?? 0) > 0;
  await showContinuation(flagged, "benign prompt", heldOut.benign[0]);
  await showContinuation(
    flagged,
    "harmful prompt",
    heldOut.harmful.find((example) => !hasOnset(example)),
  );
  const turning = heldOut.harmful.find(hasOnset);
  if (!turning) return;
  const { prompt, response } = sequenceOf(flagged, turning);
  process.stdout.write(`${pc.bold("harmless prompt, harmful answer")}  ${promptOf(turning)}\n`);
  process.stdout.write(`given answer    ${await colouredResponse(flagged, prompt, response)}\n\n`);
}

function promptOf(example: Example): string {
  return "prompt" in example ? example.prompt.replace("\n", " ") : "";
}

/**
 * What the model said to a prompt before it was trained, as the flag reads it now; and what it says now, where the
 * flag stops it.
 */
async function showContinuation(
  flagged: FlaggedModel,
  kind: string,
  example: Example | undefined,
): Promise<void> {
  if (!example || !("prompt" in example)) return;
  const { model, reference } = flagged;
  const prompt = encodePrompt(model, example.prompt);
  const options = { sampling: GREEDY, random: new Random(0), maxTokens: 160, eosIds: model.config.eosIds };
  const response: number[] = [];
  for await (const step of decode(model, prompt, { ...options, overlay: reference })) {
    if (step.kind === "token") response.push(step.id);
  }
  process.stdout.write(`${pc.bold(kind)}  ${promptOf(example)}\n`);
  process.stdout.write(`before training ${await colouredResponse(flagged, prompt, response)}\n`);
  let now = "";
  for await (const { token, text, event } of generate(flagged, prompt, { maxTokens: 160 })) {
    now += event === "flag" ? `${flagMark()} stopped` : token === null ? "" : text;
  }
  process.stdout.write(`flagged model   ${now.trimStart()}\n\n`);
}

/** A response, each token in the colour of P(flag) before it, and the highest. */
async function colouredResponse(
  flagged: FlaggedModel,
  prompt: readonly number[],
  response: readonly number[],
): Promise<string> {
  const { tokenizer } = flagged.model;
  if (!tokenizer) throw new TypeError("demo: the model has no tokenizer");
  const scorer = new FlagScorer(flagged);
  const { probabilities, max } = await scorer.score({ prompt, response });
  scorer.dispose();
  const decoder = new StreamDecoder(tokenizer);
  const pieces = response.map((id, i) => ({ text: decoder.push(id), probability: probabilities[i] ?? 0 }));
  if (pieces[0]) pieces[0].text = pieces[0].text.trimStart();
  const shown = pieces.map(({ text, probability }) => coloured(text, probability)).join("");
  return `${shown}  ${pc.dim(`highest P(<rf>) ${max.toFixed(3)}`)}`;
}

function resultTable(before: Measures, after: Measures): string {
  const percent = (value: number) => `${(100 * value).toFixed(1)} %`;
  return table([
    ["held-out prompts", "before", "after"],
    ["flag rate on harmful (P >= 0.5)", percent(before.flagRate), percent(after.flagRate)],
    ["false positives on benign", percent(before.falsePositives), percent(after.falsePositives)],
    ["AUROC of the highest P(<rf>)", before.auroc.toFixed(3), after.auroc.toFixed(3)],
    ["mean KL on benign text, nats a token", before.kl.toFixed(4), after.kl.toFixed(4)],
  ]);
}
