// A tokenizer whose tokens are words: for worlds small enough to write down.

/** Stands before every document, and after it. */
const SPECIALS = ["<bos>", "<eos>"];

/**
 * A tokenizer over a list of words. As in SentencePiece's vocabularies a word brings the space before it, and the
 * first word after `<bos>` loses it again.
 * @param {readonly string[]} words no two alike, none with a space in it
 * @returns a `Tokenizer`, whose `encode` throws RangeError for a word that is not in the list
 */
export function wordTokenizer(words) {
  const ids = new Map(words.map((word, i) => [word, SPECIALS.length + i]));
  if (ids.size !== words.length) throw new RangeError("words: two of them are the same");
  const vocabSize = SPECIALS.length + words.length;
  const wordOf = (id) => {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new RangeError(`token id ${id} is outside the vocabulary of ${vocabSize}`);
    }
    return words[id - SPECIALS.length];
  };
  return {
    vocabSize,
    bosId: 0,
    eosId: 1,
    prefixSpace: true,
    encode(text) {
      return text
        .split(/\s+/)
        .filter((word) => word !== "")
        .map((word) => {
          const id = ids.get(word);
          if (id === undefined) throw new RangeError(`'${word}' is not in the vocabulary`);
          return id;
        });
    },
    decode: (sequence) =>
      sequence
        .map(wordOf)
        .filter((word) => word !== undefined)
        .join(" "),
    bytes(id) {
      const word = wordOf(id);
      return new TextEncoder().encode(word === undefined ? "" : ` ${word}`);
    },
    tokenId(name) {
      const special = SPECIALS.indexOf(name);
      return special >= 0 ? special : ids.get(name);
    },
  };
}

const CONSONANTS = [..."bdfgklmnprstvz"];
const VOWELS = [..."aeiou"];

/**
 * Makes up words of three syllables, no two alike.
 * @param {import("oriflamme").Random} random
 * @param {number} count
 * @param {Set<string>} taken words that must not come again; the new ones are added
 */
export function inventWords(random, count, taken) {
  const pick = (letters) => letters[random.below(letters.length)];
  const words = [];
  while (words.length < count) {
    const word = Array.from({ length: 3 }, () => pick(CONSONANTS) + pick(VOWELS)).join("");
    if (taken.has(word)) continue;
    taken.add(word);
    words.push(word);
  }
  return words;
}
