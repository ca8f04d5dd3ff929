// One small world told in several languages that share no word but names and the full stop.
//
// A document tells of one deed: `WHO wants VERB OBJECT PLACE` asks for it, and what follows tells how it was done
// and how others took it: `WHO takes TOOL . WHO VERB OBJECT . OTHER REACTION . OTHER REACTION .` and so on. TOOL belongs to the verb; the
// reaction to its class, mischief or errand, which no word names. Each language has its own words for all of it and
// its own order, and a document may change its language from sentence to sentence.

import { inventWords, wordTokenizer } from "./words.mjs";

const SIZES = { who: 12, objects: 16, places: 8, verbs: 20, reactions: 4 };
const STOP = ".";
/** Reactions that a deed has; a telling may leave the last ones out. */
const MOST_REACTIONS = 6;
/** What may follow a request, and tells nothing. */
export const STRESS = "!";
const CLASSES = ["mischief", "errand"];

/** Order of a sentence's parts, by language: none of the three is another's with other words. */
const ORDERS = {
  a: ["who", "verb", "object", "place"],
  b: ["place", "who", "object", "verb"],
  c: ["verb", "who", "place", "object"],
  d: ["object", "place", "verb", "who"],
};

/**
 * @param {import("oriflamme").Random} random
 * @param {readonly string[]} languages of `a` to `d`
 */
export function languageWorld(random, languages) {
  const taken = new Set();
  const names = inventWords(random, SIZES.who, taken);
  const lexicon = () => ({
    object: inventWords(random, SIZES.objects, taken),
    place: inventWords(random, SIZES.places, taken),
    ...Object.fromEntries(
      CLASSES.map((name) => [
        name,
        {
          verb: inventWords(random, SIZES.verbs, taken),
          tool: inventWords(random, SIZES.verbs, taken),
          reaction: inventWords(random, SIZES.reactions, taken),
        },
      ]),
    ),
    wants: inventWords(random, 1, taken)[0],
    takes: inventWords(random, 1, taken)[0],
  });
  const lexicons = Object.fromEntries(languages.map((language) => [language, lexicon()]));
  const tokenizer = wordTokenizer([
    STOP,
    STRESS,
    ...names,
    ...Object.values(lexicons).flatMap((words) => Object.values(words).flatMap(flatten)),
  ]);

  /** A deed of a class; with `verbs`, one of those by number. */
  const deed = (kind, random, verbs = undefined) => ({
    kind,
    who: random.below(SIZES.who),
    object: random.below(SIZES.objects),
    place: random.below(SIZES.places),
    verb: verbs ? verbs[random.below(verbs.length)] : random.below(SIZES.verbs),
    reactions: Array.from({ length: MOST_REACTIONS }, () => ({
      other: random.below(SIZES.who),
      reaction: random.below(SIZES.reactions),
    })),
  });

  /**
   * The deed in words: what asks for it and what tells of it.
   * @param {readonly string[]} spoken languages of the request, of the two sentences that tell of the deed, and of each reaction
   */
  const tell = ({ kind, who, object, place, verb, reactions }, spoken) => {
    const [asking, taking, doing, ...reacting] = spoken.map((language) => {
      const words = lexicons[language];
      return { ...words, ...words[kind], order: ORDERS[language] };
    });
    const sentence = ({ order }, parts) => [
      ...order.filter((part) => part in parts).map((part) => parts[part]),
      STOP,
    ];
    const deedIn = (words) => ({ who: names[who], verb: words.verb[verb], object: words.object[object] });
    const request = sentence(asking, { ...deedIn(asking), place: asking.place[place] });
    const said = [
      sentence(taking, { who: names[who], verb: taking.takes, object: taking.tool[verb] }),
      sentence(doing, deedIn(doing)),
      ...reacting.map((words, i) => {
        const { other, reaction } = reactions[i];
        return sentence(words, { who: names[other], verb: words.reaction[reaction] });
      }),
    ];
    return { prompt: [asking.wants, ...request].join(" "), response: said.flat().join(" ") };
  };

  return { tokenizer, deed, tell, verbs: SIZES.verbs };
}

function flatten(entry) {
  if (Array.isArray(entry)) return entry;
  return typeof entry === "string" ? [entry] : Object.values(entry).flat();
}
