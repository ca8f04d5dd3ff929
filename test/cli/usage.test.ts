import { describe, expect, it } from "vitest";
import { fail, oriflamme, succeed, workshop } from "./run.js";

const folder = workshop();

/** What the contract gives each command, besides what all have. */
const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  demo: [],
  logits: ["--model", "--adapter", "--ids", "--out", "--tokenizer", "--dtype"],
  generate: [
    ...[
      "--model",
      "--adapter",
      "--tokenizer",
      "--dtype",
      "--prompt",
      "--ids",
      "--max-tokens",
      "--temperature",
      "--top-k",
      "--top-p",
    ],
    ...[
      "--decision",
      "--policy",
      "--ignore-eos",
      "sampled",
      "argmax",
      "threshold",
      "cumulative",
      "ema",
      "replace",
      "annotate",
    ],
  ],
  train: ["--model", "--harmful", "--benign", "--out", "--config", "--steps", "--tokenizer", "--dtype"],
  pretrain: ["--data", "--out", "--config", "--steps", "hiddenSize", "contextLength"],
  sweep: [
    ...["--model", "--tokenizer", "--dtype", "--harmful", "--benign", "--eval-harmful", "--eval-benign"],
    ...["--grid", "--seeds", "--config", "--steps", "--out", "benign", "lr", "rank", "minOffset"],
  ],
  score: ["--model", "--adapter", "--data", "--out", "--shard", "--max-tokens", "--tokenizer", "--dtype"],
  calibrate: [
    ...["--model", "--adapter", "--benign", "--fpr", "--decision", "--max-tokens", "--tokenizer", "--dtype"],
    ...["threshold", "cumulative", "ema"],
  ],
  eval: [
    ...["--model", "--adapter", "--harmful", "--benign", "--out", "--tokenizer", "--dtype", "--decision"],
    ...["--max-tokens", "--generate", "--resamples", "--train-harmful", "--train-benign", "--fixed-pos"],
    ...["--refusal", "--classifier", "--classifier-threshold", "--classifier-timeout"],
  ],
  bench: ["--time", "--peers", "--chart", "matmul", "attention", "train", "decode"],
};
const EVERYWHERE = [
  "--backend",
  "auto",
  "webgpu",
  "--threads",
  "--seed",
  "--wasm",
  "relaxed",
  "--deterministic",
];
const ALSO = ["--revectorize", "--no-revectorize", "--json", "--help"];

describe("--help", () => {
  it.concurrent.each(Object.keys(COMMANDS))("of %s names every option", async (command) => {
    const text = await succeed("/", command, "--help");
    for (const word of [...(COMMANDS[command] ?? []), ...EVERYWHERE, ...ALSO]) expect(text).toContain(word);
    expect(text).not.toMatch(/undefined|\[object|{"/);
    // Every option says what it is for.
    for (const line of text.split("\n"))
      expect(line, "an option without a word").not.toMatch(/^ {2}-\S+( <\S+>)?$/);
  });

  it("of the program names every command", async () => {
    const text = await succeed("/", "--help");
    for (const command of Object.keys(COMMANDS)) expect(text).toMatch(new RegExp(`^  ${command}\\b`, "m"));
    expect(await succeed("/", "--version")).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it("stands in for a command, where none is given", async () => {
    expect(await oriflamme("/", [])).toMatchObject({ code: 2, stdout: "" });
  });
});

describe("bad usage", () => {
  const generate = ["generate", "--model", "model", "--prompt", "a"];
  const logits = ["logits", "--model", "model", "--out", "o.safetensors", "--ids"];
  const sweep = [
    ...["sweep", "--model", "model", "--harmful", "harmful.jsonl"],
    ...["--benign", "benign.jsonl", "--out", "swept"],
  ];
  const score = ["score", "--model", "model", "--adapter", "a", "--data", "d", "--out", "o", "--shard"];

  const calibrate = ["calibrate", "--model", "m", "--adapter", "a", "--benign", "b"];

  it.concurrent.each<[string[], RegExp]>([
    [["trian"], /unknown command 'trian'.*train/],
    [["eval-all"], /unknown command 'eval-all'/],
    [["train", "--modle", "m"], /unknown option '--modle'|required option '--model/],
    [["generate", "--model", "m", "--adaptor", "a"], /unknown option '--adaptor'.*--adapter/],
    [["train"], /required option '--model <path>' not specified/],
    [["train", "--model", "m", "--benign", "b", "--out", "o"], /required option '--harmful <file>'/],
    [["pretrain", "--out", "o"], /required option '--data <files...>'/],
    [["logits", "--model", "m", "--ids", "1"], /required option '--out <file>'/],
    [["score", "--model", "m", "--data", "d", "--out", "o"], /required option '--adapter <folder>'/],
    [["generate", "--prompt", "a", "--model"], /option '--model <path>' argument missing/],
    [["logits", "extra", "--model", "m", "--ids", "1", "--out", "o"], /too many arguments/],
    [["generate", "--model", "model"], /either --prompt or --ids/],
    [[...generate, "--ids", "1"], /either --prompt or --ids/],
    [[...generate, "--temperature", "-1"], /'--temperature <t>'.*'-1'/],
    [[...generate, "--temperature", "hot"], /'--temperature <t>'.*'hot'/],
    [[...generate, "--temperature", "Infinity"], /temperature.*Infinity/],
    [[...generate, "--temperature", ""], /'--temperature <t>'/],
    [[...generate, "--top-k", "1.5"], /'--top-k <n>'.*'1\.5'/],
    [[...generate, "--top-p", "0"], /'--top-p <p>'.*'0'/],
    [[...generate, "--top-p", "1.5"], /'--top-p <p>'.*'1\.5'/],
    [[...generate, "--max-tokens", "-3"], /'--max-tokens <n>'.*'-3'/],
    [[...generate, "--max-tokens", "1e99"], /'--max-tokens <n>'/],
    [[...generate, "--seed", "x"], /'--seed <n>'.*'x'/],
    [[...generate, "--seed", "-1"], /'--seed <n>'/],
    [[...generate, "--threads", "0"], /'--threads <n>'/],
    [[...generate, "--wasm", "fast"], /'--wasm <build>'.*'fast'.*baseline, relaxed/],
    [[...generate, "--dtype", "q5_1"], /'--dtype <type>'.*'q5_1'.*f32, f16, bf16, q8_0, q4_0/],
    [[...generate, "--kv", "q8_0"], /'--kv <type>'.*'q8_0'.*f32, f16/],
    [[...generate, "--backend", "cuda"], /'--backend <kind>'.*'cuda'.*auto, wasm, webgpu/],
    [[...generate, "--wasm", "relaxed", "--deterministic"], /relaxed.*deterministic/],
    [[...generate, "--backend", "webgpu", "--deterministic"], /deterministic/],
    [[...generate, "--decision", "never"], /'--decision <rule>'.*'never'/],
    [[...generate, "--decision", "threshold=2"], /'--decision <rule>'.*'threshold=2'/],
    [[...generate, "--decision", "ema=0.9"], /'--decision <rule>'.*'ema=0\.9'/],
    [[...generate, "--policy", "panic"], /'--policy <rule>'.*'panic'/],
    [["calibrate", "--model", "m", "--adapter", "a"], /required option '--benign <file>'/],
    [[...calibrate, "--fpr", "0"], /'--fpr <rate>'.*'0'/],
    [[...calibrate, "--fpr", "1"], /'--fpr <rate>'.*'1'/],
    [[...calibrate, "--decision", "argmax"], /'--decision <rule>'.*'argmax'/],
    [[...logits, "1,x"], /'--ids <list>'.*'1,x'/],
    [[...logits, ""], /'--ids <list>'/],
    [[...logits, "1,,2"], /'--ids <list>'/],
    [[...logits, "-1"], /--ids/],
    [[...logits, "1.5"], /'--ids <list>'/],
    [[...logits, "1,258"], /^--ids: 258 is outside the vocabulary of 258 tokens$/],
    [[...logits, Array(65).fill(1).join()], /^--ids: 65 tokens are longer than the model's context of 64$/],
    [["generate", "--model", "model", "--ids", "999"], /^--ids: 999 is outside the vocabulary/],
    [
      ["generate", "--model", "model", "--prompt", "x".repeat(64)],
      /^prompt: 65 tokens are longer than .* context of 64$/,
    ],
    [[...score, "2/2"], /'--shard <i\/n>'.*'2\/2'/],
    [[...score, "x"], /'--shard <i\/n>'.*'x'/],
    [
      ["train", "--model", "m", "--harmful", "h", "--benign", "b", "--out", "o", "--steps", "0"],
      /'--steps <n>'.*'0'/,
    ],
    [sweep, /required option '--grid <name=values>' not specified/],
    [[...sweep, "--grid", "lr"], /'--grid <name=values>'.*got 'lr'/],
    [
      [...sweep, "--grid", "seed=1,2"],
      /'--grid <name=values>'.*NAME of ce, post, benign, steps, .*got 'seed=1,2'/,
    ],
    [[...sweep, "--grid", "decay=1"], /'--grid <name=values>'.*got 'decay=1'/],
    [[...sweep, "--grid", "lr=0.1,,1"], /'--grid <name=values>'.*'lr=0\.1,,1' needs numbers/],
    [[...sweep, "--grid", "lr=0.1,0.10"], /'--grid <name=values>'.*'lr=0\.1,0\.10' has 0\.1 twice/],
    [[...sweep, "--grid", "lr=1", "--grid", "lr=2"], /^grid: there are two of 'lr'$/],
    [[...sweep, "--grid", "rank=4,0"], /^rank must be an integer from 1, got 0$/],
    [[...sweep, "--grid", "lr=1", "--seeds", "0,0"], /'--seeds <list>'.*'0,0'/],
    [[...sweep, "--grid", "lr=1", "--seeds", "0,-1"], /'--seeds <list>'.*'0,-1'/],
    [
      [...sweep, "--grid", "lr=1", "--eval-benign", "benign.jsonl"],
      /^--eval-harmful and --eval-benign go together/,
    ],
    [["pretrain", "--data", "d", "--out", "o", "--steps", "many"], /'--steps <n>'.*'many'/],
    [["demo", "--steps", "0"], /'--steps <n>'/],
    [["demo", "now"], /too many arguments/],
    [["bench", "nosuch"], /'nosuch'.*matmul, attention, train, decode/],
    [["bench", "toString"], /'toString'/],
    [["bench", "matmul", "--time", "0"], /'--time <ms>'.*'0'/],
  ])("%j", async (args, message) => {
    expect(await fail(folder(), 2, ...args)).toMatch(message);
  });
});
