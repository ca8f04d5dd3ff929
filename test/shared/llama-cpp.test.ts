import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { someVocabulary } from "../../src/cli/bench/llama.js";
import type { WeightType } from "../../src/dtype.js";
import { exportModel } from "../../src/flag/export.js";
import { addRedFlag } from "../../src/flag/vocab.js";
import { writeGguf } from "../../src/formats/gguf-write.js";
import { openModel } from "../../src/formats/load.js";
import { loadModel } from "../../src/formats/load-model.js";
import { loadVocabulary } from "../../src/formats/load-vocabulary.js";
import { decode } from "../../src/generate/decode.js";
import { GREEDY } from "../../src/generate/sample.js";
import { linearLayers, type ModelConfig, type RopeScaling } from "../../src/model/config.js";
import { Random } from "../../src/random.js";
import { temporaryFolder } from "../formats/helpers.js";
import { baseline, logitsOf, randomIds } from "../model/tiny.js";
import { sharedMissing, sharedPath } from "../shared.js";

const script = fileURLToPath(new URL("llama-cpp.mjs", import.meta.url));
const library = fileURLToPath(new URL("../../bench/peers/node_modules/node-llama-cpp", import.meta.url));
const isMissing = !existsSync(library);
if (isMissing) console.warn("skipped: no node-llama-cpp (npm run bench:peers:install)");

interface Job {
  readonly path: string;
  readonly ids: readonly number[];
  readonly count: number;
  readonly texts: readonly string[];
}

interface Answer {
  readonly greedy: number[];
  readonly tokens: number[][];
}

async function llamaCpp(jobs: readonly Job[]): Promise<Answer[]> {
  const { stdout } = await promisify(execFile)(process.execPath, [script, JSON.stringify(jobs)]);
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/**
 * Expects that llama.cpp's greedy tokens are ours: that at each of them no other has a logit more than `slack` above.
 * It rounds the numbers that go into products: to f16 where weights are that, to q8_0 where they are in blocks; so
 * tokens that are level to that may change places.
 */
async function expectSame(jobs: readonly Job[], slack: number): Promise<void> {
  const theirs = await llamaCpp(jobs);
  const backend = await baseline();
  for (const [i, { path, ids }] of jobs.entries()) {
    const { greedy } = theirs[i] as Answer;
    const model = await loadModel(path, { backend });
    const { vocabSize } = model.config;
    const logits = await logitsOf(model, [...ids, ...greedy]);
    for (const [step, id] of greedy.entries()) {
      const at = (ids.length - 1 + step) * vocabSize;
      const row = logits.subarray(at, at + vocabSize);
      const behind = Math.max(...row) - (row[id] ?? Number.NaN);
      expect(behind, `${path}, token ${step}`).toBeLessThan(slack);
    }
    model.dispose();
  }
  backend.dispose();
}

const ARCHITECTURES = ["llama", "mistral", "phi3", "qwen2", "qwen3", "gpt2"];
/** The most that was seen behind: nothing with f16, 0.017 with blocks. */
const TYPES: readonly (readonly [WeightType, number])[] = [
  ["f16", 0.01],
  ["q8_0", 0.1],
  ["q4_0", 0.1],
];

// node-llama-cpp comes with the competitors, which the package's tests do without.
describe.skipIf(isMissing || sharedMissing("golden"))("llama.cpp opens what we write", () => {
  it.each(TYPES)("%s: the same greedy tokens in every architecture", async (type, slack) => {
    const folder = await temporaryFolder();
    const jobs: Job[] = [];
    for (const name of ARCHITECTURES) {
      const model = await openModel(sharedPath("golden", name));
      const path = join(folder, `${name}.gguf`);
      await writeGguf(path, model, { type, vocabulary: someVocabulary(model.config.vocabSize) });
      await model.close();
      // Its context is always over 16 positions, so it takes phi3's long factors; and it knows no window in `llama`
      // files, which does not show before it is full.
      const [length, count] = name === "mistral" ? [4, 5] : [20, 12];
      jobs.push({ path, ids: randomIds(length, model.config.vocabSize), count, texts: [] });
    }
    await expectSame(jobs, slack);
  });

  const scalings: RopeScaling[] = [
    { kind: "linear", factor: 4 },
    {
      ...{ kind: "yarn", factor: 8, originalContextLength: 16, betaFast: 4, betaSlow: 1, truncate: true },
      attentionFactor: 0.1 * Math.log(8) + 1,
    },
    {
      ...{ kind: "yarn", factor: 8, originalContextLength: 16, betaFast: 32, betaSlow: 1, truncate: true },
      attentionFactor: 1,
    },
  ];
  it("the same greedy tokens with other rotary scalings", async () => {
    const folder = await temporaryFolder();
    const model = await openModel(sharedPath("golden", "qwen2"));
    const vocabulary = someVocabulary(model.config.vocabSize);
    const jobs: Job[] = [];
    for (const [i, scaling] of scalings.entries()) {
      const path = join(folder, `${i}.gguf`);
      // A low theta, so that positions matter in so few of them.
      const config: ModelConfig = { ...model.config, position: { kind: "rope", theta: 100, scaling } };
      await writeGguf(path, { ...model, config }, { type: "f32", vocabulary });
      jobs.push({ path, ids: randomIds(20, config.vocabSize, 3), count: 12, texts: [] });
    }
    await model.close();
    await expectSame(jobs, 0.001);
  });
});

const stories = ["data", "models", "stories260K"];
describe.skipIf(isMissing || sharedMissing(...stories))("llama.cpp opens stories260K as we write it", () => {
  it("with its tokenizer: the same ids of texts, and the same story", async () => {
    const input = sharedPath(...stories, "stories260K.bin");
    const model = await openModel(input);
    const path = join(await temporaryFolder(), "stories260K.gguf");
    await writeGguf(path, model, { type: "f32", vocabulary: await loadVocabulary(input, model) });
    await model.close();
    const texts = [
      "Once upon a time, there was a little girl named Lily.",
      " two  spaces, a\nline, déjà vu, 日本 and </s>",
      "<s>",
    ];
    const [theirs] = await llamaCpp([{ path, ids: [1], count: 40, texts }]);
    const written = await openModel(path);
    expect(theirs?.tokens).toEqual(texts.map((text) => written.tokenizer?.encode(text)));
    expect(theirs?.tokens).toEqual(texts.map((text) => model.tokenizer?.encode(text)));
    await written.close();
    const greedy = await readFile(sharedPath(...stories, "runc_greedy_tokens.txt"), "utf8");
    expect(theirs?.greedy).toEqual(greedy.trim().split(/\s+/).slice(1, 41).map(Number));
  });

  it("with a flag merged into it: the tokens of model and adapter, <rf> among them, which no text becomes", async () => {
    const input = sharedPath(...stories, "stories260K.bin");
    const backend = await baseline();
    const model = await loadModel(input, { backend });
    const flagged = await addRedFlag(model, { token: "<rf>" });
    const targets = linearLayers(model.config);
    const { parameters } = flagged.attach({ rank: 3, alpha: 5, targets }, 1);
    const random = new Random(3);
    for (const [name, tensor] of parameters.entries()) {
      // A row this wide is the likeliest token now and then.
      const scale = name.startsWith("rows") ? 1 : 0.05;
      tensor.write(Float32Array.from({ length: tensor.size }, () => scale * random.normal()));
    }
    const path = join(await temporaryFolder(), "flagged.gguf");
    await exportModel(flagged, path, { to: "gguf", type: "f32", base: input });

    const greedy: number[] = [];
    const options = { sampling: GREEDY, random, maxTokens: 40, eosIds: [], overlay: flagged.overlay };
    for await (const step of decode(model, [1], options)) if (step.kind === "token") greedy.push(step.id);
    const [theirs] = await llamaCpp([{ path, ids: [1], count: 40, texts: ["a <rf> b"] }]);
    expect(theirs?.greedy).toEqual(greedy);
    expect(greedy).toContain(flagged.flagId);
    expect(theirs?.tokens[0]).not.toContain(flagged.flagId);
    backend.dispose();
  });
});
