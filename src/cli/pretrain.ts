import type { Command } from "commander";
import { FormatError } from "../errors.js";
import { byteTokenizerFiles } from "../formats/byte-level.js";
import { openFiles } from "../formats/files.js";
import { writeHuggingFace } from "../formats/hf-write.js";
import type { ModelConfig } from "../model/config.js";
import { initialise } from "../model/init.js";
import { Random } from "../random.js";
import { BYTE_SPECIALS, byteTokenizer } from "../tokenizer.js";
import { pretrain, toCorpus } from "../train/pretrain.js";
import { readConfig } from "./config-file.js";
import { expectFolderTarget } from "./load.js";
import { backendFor, type GlobalOptions, integer } from "./options.js";
import { jsonLine, progressBar } from "./terminal.js";

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
  dtype: "f32",
  seed: 0,
};

interface PretrainCommandOptions extends GlobalOptions {
  readonly data: string[];
  readonly out: string;
  readonly config?: string;
  readonly steps?: number;
}

/** `pretrain`: a small base model from raw text. */
export function pretrainCommand(root: Command): Command {
  return root
    .command("pretrain")
    .description("train a small base model from raw text, byte by byte")
    .requiredOption("--data <files...>", "UTF-8 texts; blank lines part documents")
    .requiredOption("--out <folder>", "Hugging Face folder, tokenizer included")
    .option("--config <file>", `JSON: ${Object.keys(DEFAULTS).join(", ")}`)
    .option("--steps <n>", `steps of the optimiser (default: ${DEFAULTS.steps})`, integer(1))
    .action(run);
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
  const texts = await Promise.all(options.data.map(readText));
  const tokenizer = byteTokenizer();
  const corpus = toCorpus(tokenizer, texts, BYTE_SPECIALS.bos, BYTE_SPECIALS.eos);
  if (corpus.ids.length < 2) throw new FormatError(options.data.join(", "), "holds no text to train on");

  const backend = await backendFor(options);
  try {
    const model = initialise(backend, config, tokenizer, new Random(settings.seed));
    const bar = progressBar("pretrain", settings.steps);
    let last = Number.NaN;
    try {
      const ids = { bosId: BYTE_SPECIALS.bos, eosId: BYTE_SPECIALS.eos };
      const run = { ...settings, ...ids, decay: "cosine" as const, seed: settings.seed + 1 };
      for await (const { step, loss, lr, tokensPerSecond } of pretrain(model, corpus, run)) {
        last = loss;
        bar.update(step, `loss ${loss.toFixed(3)}, ${Math.round(tokensPerSecond)} tokens/s`);
        if (options.json) jsonLine({ step, loss, lr, tokens_per_second: tokensPerSecond });
      }
    } finally {
      bar.stop();
    }
    const dtype = settings.dtype as "f32" | "f16" | "bf16";
    await writeHuggingFace(options.out, config, (name) => model.weight(name).read(), {
      dtype,
      ...byteTokenizerFiles(),
    });
    if (!options.json)
      process.stdout.write(`${options.out}: ${settings.steps} steps, loss ${last.toFixed(4)}\n`);
  } finally {
    backend.dispose();
  }
}

async function readText(path: string): Promise<string> {
  const files = await openFiles(path);
  if (files.main === null) throw new FormatError(path, "is a folder, not a text");
  return files.text(files.main);
}

/** A Llama of that size over bytes. */
function modelConfig(settings: typeof DEFAULTS, file: string): ModelConfig {
  const { hiddenSize, layers, heads, kvHeads, intermediateSize, contextLength } = settings;
  const whole = { hiddenSize, layers, heads, kvHeads, intermediateSize, contextLength };
  const { batch, accumulate, steps, lr, warmup, weightDecay, beta2, clip, ropeTheta, seed } = settings;
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
    norm: "rmsnorm",
    normEps: 1e-5,
    position: { kind: "rope", theta: settings.ropeTheta, scaling: { kind: "none" } },
    mlp: "swiglu",
    bias: { qkv: false, output: false, mlp: false },
    fusedQkv: false,
    window: null,
    tied: true,
    bosId: BYTE_SPECIALS.bos,
    eosIds: [BYTE_SPECIALS.eos],
  };
}
