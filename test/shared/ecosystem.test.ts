// What we export as transformers and PEFT read it. `ORIFLAMME_PYTHON` names a Python that has both.

import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { exportFiles } from "../../src/flag/export.js";
import { loadRedFlag, saveRedFlag } from "../../src/flag/store.js";
import { trainRedFlag } from "../../src/flag/train.js";
import { addRedFlag, type FlaggedModel, type RedFlagOptions } from "../../src/flag/vocab.js";
import { byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { loadModel } from "../../src/formats/load-model.js";
import { writeSafetensors } from "../../src/formats/safetensors-write.js";
import { replaceFile } from "../../src/formats/write.js";
import { linearLayers } from "../../src/model/config.js";
import type { Overlay } from "../../src/model/lora.js";
import type { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { applyChat } from "../../src/tokenizer.js";
import {
  CONVERSATIONS,
  chatTokenizer,
  chatTokenizerFiles,
  TEMPLATES,
  type TemplateName,
} from "../formats/chats.js";
import { temporaryFolder } from "../formats/helpers.js";
import { goldenModels, maxDifference } from "../golden.js";
import { baseline, logitsOf } from "../model/tiny.js";
import { sharedMissing, sharedPath } from "../shared.js";

const SCRIPT = fileURLToPath(new URL("ecosystem.py", import.meta.url));
const { ORIFLAMME_PYTHON: python } = process.env;
if (!python) console.warn("skipped: ORIFLAMME_PYTHON names no Python with transformers and peft");
const isSkipped = !python || sharedMissing("golden");

/** f32 in another order of summation, as for the golden logits. */
const LOGITS = 1e-4;
/** Below 256, so that they are bytes too, and more than one position for rotary embeddings. */
const IDS = [5, 100, 7, 200, 31, 5, 9];

type Job = { readonly kind: "model" | "adapter" | "tokenizer" | "chat"; readonly folder: string } & Record<
  string,
  unknown
>;
type Answer = Record<string, unknown> & { readonly difference?: number };

async function ask(folder: string, jobs: readonly Job[]): Promise<Answer[]> {
  const file = join(folder, "jobs.json");
  await writeFile(file, JSON.stringify(jobs));
  const env = { ...process.env, HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error" };
  const { stdout } = await promisify(execFile)(python ?? "", [SCRIPT, file], { env, maxBuffer: 1 << 26 });
  const answers = stdout
    .trim()
    .split("\n")
    .map((line): Answer => JSON.parse(line));
  expect(answers).toHaveLength(jobs.length);
  return answers;
}

/** A folder of a tokenizer alone. */
async function tokenizerFolder(folder: string, files: object): Promise<string> {
  const { tokenizerJson, tokenizerConfig } = files as ReturnType<typeof byteTokenizerFiles>;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizerJson));
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(tokenizerConfig));
  return folder;
}

async function logitsFile(path: string, model: Model, overlay: Overlay): Promise<string> {
  const data = await logitsOf(model, IDS, { overlay });
  const shape = [IDS.length, data.length / IDS.length];
  await replaceFile(path, writeSafetensors(new Map([["logits", { dtype: "F32" as const, shape, data }]])));
  return path;
}

const HARMFUL = ["a", "b"].map((category) => ({
  prompt: "ask",
  response: "answer",
  category,
  harmful: true,
}));
const BENIGN = [{ prompt: "ask me", response: "gladly", harmful: false }];

/** A flag that a few large steps have trained, in the last layer only where that is said. */
async function trained(model: Model, flag: RedFlagOptions, last: boolean): Promise<FlaggedModel> {
  const { layers } = model.config;
  const targets = linearLayers(model.config).filter(
    (name) => !last || name.startsWith(`layers.${layers - 1}.`),
  );
  const flagged = await addRedFlag(model, flag);
  const settings = { steps: 3, lr: 0.05, warmup: 0, rank: 4, harmfulBatch: 1, benignBatch: 1 };
  await trainRedFlag(flagged, { ...settings, targets, harmful: HARMFUL, benign: BENIGN });
  return flagged;
}

/** An appended row for a model without a tokenizer, and values wherever training would have left some. */
async function shaken(model: Model): Promise<FlaggedModel> {
  const flagged = await addRedFlag(model);
  const random = new Random(5);
  const { parameters } = flagged.attach({ rank: 4, alpha: 8, targets: linearLayers(model.config) }, 1);
  for (const [, tensor] of parameters.entries()) {
    tensor.write(Float32Array.from({ length: tensor.size }, () => 0.1 * random.normal()));
  }
  return flagged;
}

/** What a flag is to become in other hands: the merged model and the adapter, with the logits that both must give. */
async function jobsFor(
  folder: string,
  base: string,
  tokenizer: string,
  flagged: FlaggedModel,
): Promise<Job[]> {
  const { model } = flagged;
  const adapter = join(folder, "adapter");
  await saveRedFlag(flagged, adapter);
  const [merged, peft] = [join(folder, "merged"), join(folder, "peft")];
  await exportFiles({ model: base, adapter, tokenizer }, merged, { to: "hf" });
  await exportFiles({ model: base, adapter }, peft, { to: "peft" });
  const logits = await logitsFile(join(folder, "logits.safetensors"), model, flagged.overlay);
  const vocabSize = Math.max(model.config.vocabSize, ...flagged.flagIds.map((id) => id + 1));
  const tokens = flagged.flagTexts;
  return [
    { kind: "model", folder: merged, ids: IDS, logits },
    { kind: "adapter", folder: peft, base, vocabSize, ids: IDS, logits },
    { kind: "tokenizer", folder: merged, tokens, texts: [`a${tokens.join("b")}`, "<rf", "é"] },
  ];
}

/** Whether training has changed anything that the comparison could miss. */
async function change(flagged: FlaggedModel): Promise<number> {
  const { model, overlay, reference } = flagged;
  return maxDifference(
    await logitsOf(model, IDS, { overlay }),
    await logitsOf(model, IDS, { overlay: reference }),
  );
}

// Python is no dependency of the package.
describe.skipIf(isSkipped)("transformers and PEFT", () => {
  it("give our logits of every golden model with a flag, and know its token", async () => {
    const root = await temporaryFolder();
    const tokenizer = await tokenizerFolder(join(root, "tokenizer"), byteTokenizerFiles());
    const backend = await baseline();
    const names: string[] = [];
    const jobs: Job[] = [];
    const ids: (readonly number[])[] = [];
    for (const name of goldenModels()) {
      const base = sharedPath("golden", name);
      for (const [what, make] of makers(backend, base, tokenizer)) {
        const flagged = await make();
        expect(await change(flagged), `${name}, ${what}`).toBeGreaterThan(0.01);
        const folder = join(root, `${name}-${names.length}`);
        jobs.push(...(await jobsFor(folder, base, tokenizer, flagged)));
        names.push(`${name}, ${what}`);
        ids.push(flagged.flagIds);
        flagged.dispose();
        flagged.model.dispose();
      }
    }
    const answers = await ask(root, jobs);
    for (const [i, name] of names.entries()) {
      const [merged, adapter, read] = answers.slice(3 * i, 3 * i + 3);
      console.info(`${name}: merged within ${merged?.difference}, adapter within ${adapter?.difference}`);
      expect(merged?.difference, `${name}: merged`).toBeLessThan(LOGITS);
      expect(adapter?.difference, `${name}: adapter`).toBeLessThan(LOGITS);
      const flags = ids[i] ?? [];
      const inText = flags.flatMap((id, k) => (k > 0 ? [98, id] : [97, id]));
      expect(read, name).toEqual({
        tokens: flags,
        texts: [inText, [...Buffer.from("<rf")], [0xc3, 0xa9]],
        skipped: "",
        special: flags.map(() => true),
      });
    }
  });

  it.each(["redflag", "redflag-untied"])("give the logits of %s that PEFT gave", async (name) => {
    const root = await temporaryFolder();
    const backend = await baseline();
    const [base, adapter] = [sharedPath("golden", name, "base"), sharedPath("golden", name, "adapter")];
    const [merged, peft] = [join(root, "merged"), join(root, "peft")];
    await exportFiles({ model: base, adapter }, merged, { to: "hf" });
    await exportFiles({ model: base, adapter }, peft, { to: "peft" });
    const model = await loadModel(base, { backend });
    const flagged = await loadRedFlag(model, adapter);
    const logits = await logitsFile(join(root, "logits.safetensors"), model, flagged.overlay);
    const vocabSize = model.config.vocabSize + 1;
    const answers = await ask(root, [
      { kind: "model", folder: merged, ids: IDS, logits },
      { kind: "adapter", folder: peft, base, vocabSize, ids: IDS, logits },
    ]);
    for (const { difference } of answers) expect(difference).toBeLessThan(LOGITS);
  });

  it("lay conversations out in the same ids", async () => {
    const root = await temporaryFolder();
    const templates = Object.keys(TEMPLATES) as TemplateName[];
    const jobs: Job[] = [];
    for (const name of templates) {
      const folder = await tokenizerFolder(join(root, name), chatTokenizerFiles(TEMPLATES[name]));
      jobs.push({ kind: "chat", folder, conversations: CONVERSATIONS });
    }
    const answers = await ask(root, jobs);
    for (const [i, name] of templates.entries()) {
      const tokenizer = chatTokenizer(TEMPLATES[name]);
      expect(answers[i]?.ids, name).toEqual(CONVERSATIONS.map((messages) => applyChat(tokenizer, messages)));
    }
  });
});

/** The flags that each model is tried with. */
function makers(backend: Backend, base: string, tokenizer: string): [string, () => Promise<FlaggedModel>][] {
  const load = (options = {}) => loadModel(base, { backend, ...options });
  return [
    [
      "a row between tokenizer and padding, last layer",
      async () => trained(await load({ tokenizer }), {}, true),
    ],
    [
      "two rows, all layers",
      async () => trained(await load({ tokenizer }), { categories: ["a", "b"] }, false),
    ],
    ["a row behind the padding", async () => shaken(await load())],
  ];
}
