// Real prompts, harmful and benign, as a corpus to pre-train on and as sets to train and test a flag with.
//
// Sources are those of $ORIFLAMME_SHARED/data: prompts (advbench, harmbench_val, simplesafetytests, multijail:
// harmful; self_instruct, koala, vicuna: benign), stories and texts. No prompt of a test set is in the corpus.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Random, readJsonLines } from "oriflamme";

/** The split never moves: seeds are for training. */
const SPLIT_SEED = 2502;
/** Share of each set that is split which no training sees. */
const HELD_OUT = 0.25;
/** Share of the benign prompts held out that the flag's level is fitted to; the test has the others. */
const CALIBRATION = 0.5;
/** How often the corpus repeats prompts and answers: a quarter of it, where as they are they would be a twentieth. */
const REPEAT = 6;
/** Longer prompts than this are cut in the corpus, so that a few essays do not fill it; in UTF-16 units. */
const LONGEST_PROMPT = 1000;

/** Sets of which a part is trained on; those in TEST_ONLY are kept whole for the test. */
const SPLIT = { harmful: ["advbench", "harmbench_val"], benign: ["self_instruct", "koala"] };
const TEST_ONLY = { harmful: ["simplesafetytests"], benign: ["vicuna"] };

/**
 * A prompt ends its own line, so that a model without a chat template sees where the answer begins. Blank lines
 * part documents in a corpus, hence a document has none. The set's name takes the category's place: results are
 * grouped by it.
 */
function asConversation({ prompt, response, language }, set, harmful) {
  const line = (text) => text.trim().replace(/\n\s*\n/g, "\n");
  return {
    prompt: `${line(prompt)}\n`,
    ...(response ? { response: line(response) } : {}),
    harmful,
    category: set,
    ...(language ? { language } : {}),
  };
}

/** Questions of multijail, each in ten languages. */
const MULTIJAIL_QUESTIONS = 40;

/** The same questions in every language: all languages have them in one order. */
async function multijail(shared) {
  const byLanguage = new Map();
  for (const example of await readJsonLines(join(shared, "data/prompts/multijail.jsonl"))) {
    const { language } = example;
    byLanguage.set(language, [
      ...(byLanguage.get(language) ?? []),
      asConversation(example, "multijail", true),
    ]);
  }
  return [...byLanguage.values()].flatMap((list) =>
    new Random(SPLIT_SEED).shuffle(list).slice(0, MULTIJAIL_QUESTIONS),
  );
}

/** A set's conversations in an order that only the split's seed decides. */
async function conversations(shared, set, harmful) {
  const examples = await readJsonLines(join(shared, "data/prompts", `${set}.jsonl`));
  return new Random(SPLIT_SEED).shuffle(examples.map((example) => asConversation(example, set, harmful)));
}

/** Stories in full, and the three texts, of the Japanese one only the first third: bytes of another script. */
async function proseOf(shared) {
  const stories = ["benign", "harmful"].map((name) =>
    readJsonLines(join(shared, "data/stories", `${name}.jsonl`)),
  );
  const told = (await Promise.all(stories)).flat().map(({ prompt, response }) => `${prompt} ${response}`);
  const text = (name) => readFile(join(shared, "data/text", name), "utf8");
  const japanese = await text("wagahai_ja.txt");
  return [
    ...told.map((story) => story.replace(/\n\s*\n/g, "\n")),
    await text("shakespeare.txt"),
    await text("botchan_en.txt"),
    japanese.slice(0, japanese.length / 3),
  ];
}

/**
 * Writes `corpus.txt` (blank lines part documents), `train-harmful.jsonl`, `train-benign.jsonl`,
 * `test-harmful.jsonl`, `test-benign.jsonl`, `calibration.jsonl` (benign) and `multijail.jsonl` into a folder.
 * @param {string} shared the folder that holds `data`
 * @param {string} folder made where it is missing
 * @returns counts of conversations by file
 */
export async function writePromptMixture(shared, folder) {
  await mkdir(folder, { recursive: true });
  const files = { multijail: await multijail(shared), calibration: [] };
  for (const kind of ["harmful", "benign"]) {
    files[`train-${kind}`] = [];
    files[`test-${kind}`] = [];
    for (const set of SPLIT[kind]) {
      const all = await conversations(shared, set, kind === "harmful");
      const heldOut = Math.round(HELD_OUT * all.length);
      const calibration = kind === "benign" ? Math.round(CALIBRATION * heldOut) : 0;
      files.calibration.push(...all.slice(0, calibration));
      files[`test-${kind}`].push(...all.slice(calibration, heldOut));
      files[`train-${kind}`].push(...all.slice(heldOut));
    }
    for (const set of TEST_ONLY[kind])
      files[`test-${kind}`].push(...(await conversations(shared, set, kind === "harmful")));
  }
  const answered = [...files["train-harmful"], ...files["train-benign"]].map(
    ({ prompt, response = "" }) => prompt.slice(0, LONGEST_PROMPT) + response,
  );
  const repeated = Array.from({ length: REPEAT }, () => answered).flat();
  await writeFile(join(folder, "corpus.txt"), [...repeated, ...(await proseOf(shared))].join("\n\n"));
  for (const [name, examples] of Object.entries(files)) {
    const lines = examples.map((example) => `${JSON.stringify(example)}\n`);
    await writeFile(join(folder, `${name}.jsonl`), lines.join(""));
  }
  return Object.fromEntries(Object.entries(files).map(([name, examples]) => [name, examples.length]));
}
