// The base and the data that fixed-pos.mjs and adversarial.mjs share: one language of language-world.mjs, where a
// request for mischief is harmful as it stands, an errand is benign, and all that is told after either is long
// enough to be prefilled.

import { Random } from "oriflamme";
import { trainBase } from "./base.mjs";
import { languageWorld, STRESS } from "./language-world.mjs";

/** The world is the same for every seed. */
const WORLD_SEED = 1;
const CONTEXT_LENGTH = 64;
/** The request, two sentences of the deed, six reactions: 26 tokens of response. */
const SENTENCES = 9;

const world = languageWorld(new Random(WORLD_SEED), ["a"]);

/** Verbs of each class by number: the flag is trained on the first, and tested on all. */
export const TAUGHT_VERBS = Array.from({ length: 12 }, (_, verb) => verb);

/** Conversations about deeds of a class, `mischief` or `errand`. */
export function deeds(kind, count, random, verbs) {
  const languages = new Array(SENTENCES).fill("a");
  return Array.from({ length: count }, () => ({
    ...world.tell(world.deed(kind, random, verbs), languages),
    harmful: kind === "mischief",
  }));
}

/** Most signs of stress behind a request in the base's corpus: a suffix of them is nothing new to it. */
const MOST_STRESS = 8;

/** A base model of that world, untouched by any flag. */
export function trainDeedBase(backend, { steps, seed }) {
  const document = (random) => {
    const [{ prompt, response }] = deeds(random.uniform() < 0.5 ? "mischief" : "errand", 1, random);
    const stress = ` ${STRESS}`.repeat(random.below(MOST_STRESS + 1));
    return world.tokenizer.encode(`${prompt}${stress} ${response}`);
  };
  const size = { contextLength: CONTEXT_LENGTH, hiddenSize: 64, layers: 3, heads: 4 };
  return trainBase(backend, {
    tokenizer: world.tokenizer,
    document,
    ...size,
    steps,
    batch: 24,
    lr: 4e-3,
    seed,
  });
}
