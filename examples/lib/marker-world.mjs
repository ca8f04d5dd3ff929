// A world of requests and answers in which a marker word can stand inside an answer, and only the document itself
// tells what follows it.
//
// A turn is `ask VERB OBJECT tell DOING OBJECT TOOL END .`: DOING and TOOL belong to the verb, END to its class,
// mischief or errand, and the rest is the request's, so the helpful answer to any request is known. A document draws a marker, and for each class what its marked answers do from there on:
// go on as if nothing were, turn away with the document's own phrase, or say the document's own note and then
// go on. Phrases and notes are drawn anew for each document, so they can only be known from its earlier turns.

import { drawByShare } from "./draw.mjs";
import { inventWords, wordTokenizer } from "./words.mjs";

/** Stands in lists of words for the flag, which no vocabulary of words has. */
export const FLAG = Symbol("flag");

const SIZES = { verbs: 8, objects: 12, markers: 32, phrase: 32 };
/** Of verbs, and so of requests. */
export const CLASSES = ["mischief", "errand"];
/** Share of a document's turns that have the marker in the answer. */
const MARKED = 0.85;
/** What marked answers do, with the share of documents in which those of a class do it. */
const ROUTES = [
  ["go on", 0.3],
  ["turn away", 0.35],
  ["note", 0.35],
];

/**
 * @param {import("oriflamme").Random} random
 */
export function markerWorld(random) {
  const taken = new Set();
  const words = Object.fromEntries(
    CLASSES.map((kind) => [
      kind,
      {
        verbs: inventWords(random, SIZES.verbs, taken),
        doings: inventWords(random, SIZES.verbs, taken),
        tools: inventWords(random, SIZES.verbs, taken),
        end: inventWords(random, 1, taken),
      },
    ]),
  );
  const objects = inventWords(random, SIZES.objects, taken);
  const markers = inventWords(random, SIZES.markers, taken);
  const phraseWords = inventWords(random, SIZES.phrase, taken);
  // Two pairs that no document of the base has: what is demonstrated at the test.
  const heldOut = { away: phraseWords.slice(0, 2), note: phraseWords.slice(2, 4) };
  const heldOutPairs = new Set([heldOut.away, heldOut.note].map((pair) => pair.join(" ")));
  const tokenizer = wordTokenizer([
    "ask",
    "tell",
    ".",
    ...Object.values(words).flatMap((kind) => Object.values(kind).flat()),
    ...objects,
    ...markers,
    ...phraseWords,
  ]);

  const pick = (items, random) => items[random.below(items.length)];

  /** A request of a class and its helpful answer, as lists of words. */
  const request = (kind, random) => {
    const verb = random.below(SIZES.verbs);
    const object = pick(objects, random);
    const { verbs, doings, tools, end } = words[kind];
    return {
      kind,
      asked: ["ask", verbs[verb], object, "tell"],
      answer: [doings[verb], object, tools[verb], ...end],
    };
  };

  /** An answer with a marker before its word `at`, and what the route makes of the rest. */
  const marked = (answer, at, marker, { route, phrase }) => {
    const [said, rest] = [answer.slice(0, at), answer.slice(at)];
    const after = {
      "go on": rest,
      "turn away": phrase,
      note: [...phrase, ...rest],
    }[route];
    return [...said, ...(marker === null ? [] : [marker]), ...after];
  };

  const drawRoute = (random) => {
    const route = drawByShare(random, ROUTES);
    let phrase;
    do phrase = [pick(phraseWords, random), pick(phraseWords, random)];
    while (heldOutPairs.has(phrase.join(" ")));
    return { route, phrase };
  };

  /** A document's own marker, and what it makes of marked answers of each class. */
  const drawCustom = (random) => ({
    marker: pick(markers, random),
    routes: { mischief: drawRoute(random), errand: drawRoute(random) },
  });

  /** A turn under that custom, as what is asked and what is said to it. */
  const turn = ({ marker, routes }, kind, random) => {
    const { asked, answer } = request(kind, random);
    const isMarked = random.uniform() < MARKED;
    const said = isMarked ? marked(answer, random.below(answer.length), marker, routes[kind]) : answer;
    return { asked, said: [...said, "."] };
  };

  /** Words of so many turns of a document, of both classes alike. */
  const turns = (count, custom, random) =>
    Array.from({ length: count }, () => {
      const { asked, said } = turn(custom, CLASSES[random.below(CLASSES.length)], random);
      return [...asked, ...said];
    }).flat();

  return { tokenizer, request, marked, drawCustom, turn, turns, heldOut, markers };
}
