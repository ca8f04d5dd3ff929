// Is a language flagged that was seen in pre-training, but never in the flag's training? (arXiv 2502.16366)
//
//   node examples/languages.mjs [--seed 0] [--seeds 3] [--backend wasm|webgpu] [--threads N]
//
// A small world (examples/lib/language-world.mjs) is told in four made-up languages. The base sees three: a and b,
// in two of five documents mixed with each other; c, always alone. d it never sees. The flag is then taught in a only, on mischief
// by some of the verbs; errands are benign. Each language is tested on deeds of its own of both classes, so that the
// language itself tells nothing, by verbs whose like in a was taught and by others, whose class only the base knows.

import { addRedFlag, auroc, FlagScorer, Random, toSequence, trainRedFlag } from "oriflamme";
import { trainBase } from "./lib/base.mjs";
import { drawByShare } from "./lib/draw.mjs";
import { experimentBackend, experimentOptions, SMALL_FLAG } from "./lib/experiment.mjs";
import { languageWorld } from "./lib/language-world.mjs";
import { meanAndSpread, table } from "./lib/table.mjs";

const options = experimentOptions({ seeds: 3, baseSteps: 1000, steps: 150, examples: 100 });

const CONTEXT_LENGTH = 64;
/** The world is the same for every seed. */
const WORLD_SEED = 1;
/** Verbs of each class that the flag's training has; the others are new to it. */
const TAUGHT = 12;
const TRAINING_EXAMPLES = 300;
const TEST_EXAMPLES = options.examples;
const LANGUAGES = {
  a: "taught the flag",
  b: "seen mixed with a",
  c: "seen alone",
  d: "never seen",
};

const world = languageWorld(new Random(WORLD_SEED), Object.keys(LANGUAGES));
const numbers = Array.from({ length: world.verbs }, (_, verb) => verb);
const VERBS = { taught: numbers.slice(0, TAUGHT), new: numbers.slice(TAUGHT) };

/** Shares of the base's documents; `a+b` changes between the two from sentence to sentence. */
const CORPUS = [
  ["a", 0.2],
  ["b", 0.15],
  ["c", 0.25],
  ["a+b", 0.4],
];
/** Parts of a document that have a language: the request and three sentences. */
const PARTS = 4;

/** A document of the base's corpus. */
function document(random) {
  const choice = drawByShare(random, CORPUS).split("+");
  const languages = Array.from({ length: PARTS }, () => choice[random.below(choice.length)]);
  const deed = world.deed(random.uniform() < 0.5 ? "mischief" : "errand", random);
  return world.tokenizer.encode(Object.values(world.tell(deed, languages)).join(" "));
}

function examples(language, kind, count, verbs, random) {
  const languages = new Array(PARTS).fill(language);
  return Array.from({ length: count }, () => world.tell(world.deed(kind, random, verbs), languages));
}

/** How the flag tells mischief from errands in one language, by verbs of one group. */
async function test(flagged, language, verbs, random) {
  const scorer = new FlagScorer(flagged);
  const limits = { maxResponse: CONTEXT_LENGTH, contextLength: CONTEXT_LENGTH, minOffset: 0 };
  const scoresOf = async (kind) => {
    const scores = [];
    for (const example of examples(language, kind, TEST_EXAMPLES, verbs, random)) {
      scores.push((await scorer.score(toSequence(world.tokenizer, example, limits))).max);
    }
    return scores;
  };
  const [positive, negative] = [await scoresOf("mischief"), await scoresOf("errand")];
  scorer.dispose();
  const rate = (scores) => scores.filter((score) => score >= 0.5).length / scores.length;
  return { auroc: auroc({ positive, negative }), flagged: rate(positive), falselyFlagged: rate(negative) };
}

const backend = await experimentBackend(options);
const start = performance.now();
/** Results of the seeds, by language and group of verbs. */
const results = Object.fromEntries(
  Object.keys(LANGUAGES).map((language) => [language, { taught: [], new: [] }]),
);
for (let i = 0; i < options.seeds; i++) {
  const seed = options.seed + i;
  const { model, loss } = await trainBase(backend, {
    tokenizer: world.tokenizer,
    document,
    contextLength: CONTEXT_LENGTH,
    hiddenSize: 64,
    layers: 3,
    heads: 4,
    steps: options.baseSteps,
    batch: 24,
    lr: 4e-3,
    seed,
  });
  const random = new Random(seed + 100);
  const flagged = await addRedFlag(model);
  const run = await trainRedFlag(flagged, {
    harmful: examples("a", "mischief", TRAINING_EXAMPLES, VERBS.taught, random),
    benign: examples("a", "errand", TRAINING_EXAMPLES, VERBS.taught, random),
    steps: options.steps,
    ...SMALL_FLAG,
    seed,
  });
  const { terms } = run.steps.at(-1);
  console.error(`seed ${seed}: base ${loss.toFixed(3)} nats a token; flag ${JSON.stringify(terms)}`);
  for (const language of Object.keys(LANGUAGES)) {
    for (const [group, verbs] of Object.entries(VERBS)) {
      results[language][group].push(await test(flagged, language, verbs, random));
    }
  }
  flagged.dispose();
  model.dispose();
}
const seconds = (performance.now() - start) / 1000;

const rows = Object.entries(results).flatMap(([language, groups]) =>
  Object.entries(groups).map(([group, list]) => [
    language,
    LANGUAGES[language],
    group,
    ...["auroc", "flagged", "falselyFlagged"].map((name) =>
      meanAndSpread(list.map((result) => result[name])),
    ),
  ]),
);
console.log(table(["language", "", "verbs", "AUROC", "flagged", "falsely flagged"], rows));
console.log(JSON.stringify({ seed: options.seed, seeds: options.seeds, seconds, results }));
backend.dispose();
