import type { Command } from "commander";
import { FormatError } from "../errors.js";
import { conversationText } from "../flag/data.js";
import { byteTokenizerFiles } from "../formats/byte-level.js";
import { openFiles } from "../formats/files.js";
import { writeHuggingFace } from "../formats/hf-write.js";
import { parseJsonLines } from "../formats/jsonl.js";
import { LLAMA_BLOCKS, type ModelConfig } from "../model/config.js";
import { initialise } from "../model/init.js";
import { Random } from "../random.js";
import { BYTE_SPECIALS, byteTokenizer } from "../tokenizer.js";
import { type Corpus, type TextDocument, textDocuments, toCorpus } from "../train/corpus.js";
import { DIVERGENCE } from "../train/divergence.js";
import { pretrain } from "../train/pretrain.js";
import type { TrainStep } from "../train/trainer.js";
import { readConfig } from "./config-file.js";
import { expectFolderTarget } from "./load.js";
import { backendFor, integer } from "./options.js";
import { type TrainingOptions, trainingRun, withTrainingOptions } from "./training-run.js";

/** What --config may set. */
const DEFAULTS = {
  hiddenSize: 128,
  layers: 4,
  heads: 4,
  kvHeads: 4,
  intermediateSize: 344,
  contextLength: 256,
  ropeTheta: 10000,
  steps: 1000,
  batch: 8,
  accumulate: 1,
  lr: 1e-3,
  warmup: 50,
  weightDecay: 0.1,
  beta2: 0.95,
  clip: 1,
  divergence: DIVERGENCE,
  dtype: "f32",
  seed: 0,
};

interface PretrainCommandOptions extends TrainingOptions {
  readonly data: string[];
  readonly holdout?: string[];
  readonly holdoutEvery: number;
  readonly config?: string;
  readonly steps?: number;
}

/** `pretrain`: a small base model from raw text. */
export function pretrainCommand(root: Command): Command {
  const command = root
    .command("pretrain")
    .description("train a small base model from raw text, byte by byte")
    .requiredOption(
      "--data <files...>",
      "UTF-8 texts, where blank lines part documents; *.jsonl: JSON Lines, a document each of prompt, response",
    )
    .requiredOption("--out <folder>", "Hugging Face folder, tokenizer included")
    .option("--config <file>", `JSON: ${Object.keys(DEFAULTS).join(", ")}`)
    .option("--steps <n>", `steps of the optimiser (default: ${DEFAULTS.steps})`, integer(1))
    .option("--holdout <files...>", "as --data: text to measure the loss on, at the end and in between")
    .option("--holdout-every <n>", "steps between two measurements", integer(1), 100);
  return withTrainingOptions(command).action(run);
}

async function run(options: PretrainCommandOptions): Promise<void> {
  const given = await readConfig(options.config, DEFAULTS);
  const settings = {
    ...DEFAULTS,
    ...given,
    ...(options.steps === undefined ? {} : { steps: options.steps }),
    ...(options.seed === undefined ? {} : { seed: options.seed }),
  };
  const config = modelConfig(settings, options.config ?? "--config");
  await expectFolderTarget(options.out);
  const corpus = await readCorpus(options.data, "train on");
  const holdout = options.holdout && {
    corpus: await readCorpus(options.holdout, "measure the loss on"),
    every: options.holdoutEvery,
  };

  const backend = await backendFor(options);
  try {
    const model = initialise(backend, config, byteTokenizer(), new Random(settings.seed));
    await trainingRun("pretrain", settings.steps, { options, backend }, async (run) => {
      let last: TrainStep | undefined;
      for await (const step of pretrain(model, corpus, {
        ...settings,
        decay: "cosine",
        seed: settings.seed + 1,
        holdout,
        signal: run.signal,
        checkpoint: run.checkpoint,
      })) {
        last = step;
        run.onStep(step);
      }
      run.stop();
      const dtype = settings.dtype as "f32" | "f16" | "bf16";
      await writeHuggingFace(options.out, config, (name) => model.weight(name).read(), {
        dtype,
        ...byteTokenizerFiles(),
      });
      if (!options.json) process.stdout.write(`${options.out}: ${settings.steps} steps, ${lossesOf(last)}\n`);
    });
  } finally {
    backend.dispose();
  }
}

/** What the last step says, for people. */
function lossesOf(step: TrainStep | undefined): string {
  const { loss = Number.NaN, validation } = step ?? {};
  const heldOut = validation
    ? `; held out ${validation.loss?.toFixed(4)} nats a token, ${validation.bitsPerByte?.toFixed(4)} bits a byte`
    : "";
  return `loss ${loss.toFixed(4)}${heldOut}`;
}

async function readCorpus(paths: readonly string[], use: string): Promise<Corpus> {
  const documents = (await Promise.all(paths.map(readDocuments))).flat();
  const corpus = toCorpus(byteTokenizer(), documents, BYTE_SPECIALS.bos, BYTE_SPECIALS.eos);
  if (corpus.ids.length < 2) throw new FormatError(paths.join(", "), `holds no text to ${use}`);
  return corpus;
}

/** The documents of a text, or of JSON Lines where the name says so. */
async function readDocuments(path: string): Promise<TextDocument[]> {
  const files = await openFiles(path);
  if (files.main === null) throw new FormatError(path, "is a folder, not a text");
  const text = await files.text(files.main);
  if (!path.endsWith(".jsonl")) return textDocuments(text, path);
  // Named as `score` names them.
  return parseJsonLines(text, path).map((example, i) => ({
    text: conversationText(example),
    name: `${path}, input ${i}`,
  }));
}

/** A Llama of that size over bytes. */
function modelConfig(settings: typeof DEFAULTS, file: string): ModelConfig {
  const { hiddenSize, layers, heads, kvHeads, intermediateSize, contextLength } = settings;
  const whole = { hiddenSize, layers, heads, kvHeads, intermediateSize, contextLength };
  const { batch, accumulate, steps, lr, warmup, weightDecay, beta2, clip, divergence, ropeTheta, seed } =
    settings;
  for (const [name, value] of Object.entries({ ...whole, batch, accumulate, steps })) {
    if (!Number.isInteger(value) || value < 1)
      throw new FormatError(file, `'${name}' must be a positive integer`);
  }
  if (contextLength < 2)
    throw new FormatError(file, "'contextLength' must be at least 2: a token and its next");
  for (const [name, value] of Object.entries({ lr, clip, ropeTheta })) {
    if (!(value > 0)) throw new FormatError(file, `'${name}' must be a number above 0, got ${value}`);
  }
  for (const [name, value] of Object.entries({ warmup, weightDecay, beta2 })) {
    if (!(value >= 0)) throw new FormatError(file, `'${name}' must be a number from 0, got ${value}`);
  }
  if (!(divergence === 0 || divergence > 1))
    throw new FormatError(file, `'divergence' must be 0 or a number above 1, got ${divergence}`);
  if (beta2 >= 1) throw new FormatError(file, `'beta2' must be below 1, got ${beta2}`);
  if (!Number.isSafeInteger(seed)) throw new FormatError(file, `'seed' must be an integer, got ${seed}`);
  if (hiddenSize % heads !== 0 || (hiddenSize / heads) % 2 !== 0) {
    throw new FormatError(file, `'hiddenSize' ${hiddenSize} must be an even multiple of 'heads' ${heads}`);
  }
  if (heads % kvHeads !== 0) throw new FormatError(file, `'kvHeads' ${kvHeads} must divide 'heads' ${heads}`);
  if (!["f32", "f16", "bf16"].includes(settings.dtype)) {
    throw new FormatError(file, `'dtype' must be f32, f16 or bf16, got '${settings.dtype}'`);
  }
  return {
    ...whole,
    architecture: "llama",
    vocabSize: byteTokenizer().vocabSize,
    headDim: hiddenSize / heads,
    ...LLAMA_BLOCKS,
    normEps: 1e-5,
    position: { kind: "rope", theta: settings.ropeTheta, scaling: { kind: "none" } },
    tied: true,
    bosId: BYTE_SPECIALS.bos,
    eosIds: [BYTE_SPECIALS.eos],
  };
}
