import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { describe, expect, it } from "vitest";
import { byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { withAddedTokens, withSpecialTokens } from "../../src/formats/hf-added-tokens.js";
import { huggingFaceTokenizer } from "../../src/formats/hf-tokenizer.js";

type Json = Record<string, unknown>;
const { tokenizerJson, tokenizerConfig } = byteTokenizerFiles() as {
  tokenizerJson: Json;
  tokenizerConfig: Json;
};

const added = (json: Json) => (json.added_tokens as Json[]).map(({ id, content }) => [id, content]);
const vocabOf = (json: Json) => (json.model as { vocab: Record<string, number> }).vocab;

/** The ids that Hugging Face's library gives, special tokens being looked for. */
function idsOf(json: Json, text: string): number[] {
  return new LibraryTokenizer(json, tokenizerConfig).encode(text, { add_special_tokens: false }).ids;
}

describe("a token behind the last", () => {
  const json = withAddedTokens(tokenizerJson, [{ id: 258, content: "<rf>" }], "t.json");

  it("is a special one that text becomes only where it is asked for", () => {
    expect(added(json)).toEqual([
      [256, "<bos>"],
      [257, "<eos>"],
      [258, "<rf>"],
    ]);
    expect(idsOf(json, "a<rf>b")).toEqual([97, 258, 98]);
    const tokenizer = huggingFaceTokenizer(json, tokenizerConfig, "t.json");
    expect([tokenizer.tokenId("<rf>"), tokenizer.vocabSize]).toEqual([258, 259]);
    expect(tokenizer.encode("<rf>")).toEqual(Array.from(Buffer.from("<rf>")));
    expect(tokenizer.decode([97, 258])).toBe("a");
  });

  it("leaves vocabulary and files as they were", () => {
    expect(json.model).toEqual(tokenizerJson.model);
    expect(added(tokenizerJson)).toHaveLength(2);
  });
});

it("several tokens come in the order of their ids", () => {
  const tokens = [
    { id: 259, content: "<rf:b>" },
    { id: 258, content: "<rf:a>" },
  ];
  const json = withAddedTokens(tokenizerJson, tokens, "t.json");
  expect(added(json).slice(2)).toEqual([
    [258, "<rf:a>"],
    [259, "<rf:b>"],
  ]);
  expect(json.model).toEqual(tokenizerJson.model);
});

describe("a token after rows that stand for nothing", () => {
  it("is in the vocabulary, as all added ones are then: else readers would give it the next id", () => {
    const json = withAddedTokens(tokenizerJson, [{ id: 320, content: "<rf>" }], "t.json");
    expect(added(json)).toEqual([
      [256, "<bos>"],
      [257, "<eos>"],
      [320, "<rf>"],
    ]);
    expect(Object.entries(vocabOf(json)).slice(256)).toEqual([
      ["<bos>", 256],
      ["<eos>", 257],
      ["<rf>", 320],
    ]);
    expect(idsOf(json, "<rf>a<eos>")).toEqual([320, 97, 257]);
    expect(huggingFaceTokenizer(json, tokenizerConfig, "t.json").vocabSize).toBe(321);
  });

  it("takes its place in a list of pieces, which has no gaps", () => {
    const unigram: Json = {
      ...tokenizerJson,
      added_tokens: [{ id: 3, content: "<s>", special: true }],
      model: {
        type: "Unigram",
        unk_id: 0,
        vocab: [
          ["<unk>", 0],
          ["a", -1],
          ["b", -2],
        ],
      },
    };
    const json = withAddedTokens(unigram, [{ id: 5, content: "<rf>" }], "t.json");
    expect((json.model as Json).vocab).toEqual([
      ["<unk>", 0],
      ["a", -1],
      ["b", -2],
      ["<s>", -2],
      ["<unused:4>", -2],
      ["<rf>", -2],
    ]);
    // Without a gap the list stays.
    expect(withAddedTokens(unigram, [{ id: 4, content: "<rf>" }], "t.json").model).toEqual(unigram.model);
  });
});

describe("a token in the place of another", () => {
  it("takes its name and its marks", () => {
    const special = { id: 257, content: "<|reserved_0|>", special: false, lstrip: true };
    const reserved = { ...tokenizerJson, added_tokens: [special] };
    const json = withAddedTokens(reserved, [{ id: 257, content: "<rf>" }], "t.json");
    expect(json.added_tokens).toEqual([
      {
        id: 257,
        content: "<rf>",
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ]);
  });

  it("of the vocabulary: no text becomes it, merges with it go", () => {
    const model = { ...(tokenizerJson.model as Json), merges: ["a b", "ab c", "c d"] };
    const merged = { ...vocabOf(tokenizerJson), ab: 258, abc: 259, cd: 260 };
    const json = withAddedTokens(
      { ...tokenizerJson, model: { ...model, vocab: merged } },
      [{ id: 258, content: "<rf>" }],
      "t.json",
    );
    expect((json.model as Json).merges).toEqual(["c d"]);
    expect(vocabOf(json)).toMatchObject({ "<rf>": 258, abc: 259 });
    expect("ab" in vocabOf(json)).toBe(false);
    expect(idsOf(json, "ab<rf>cd")).toEqual([97, 98, 258, 260]);
  });

  it("is refused where another token has the name", () => {
    const attempt = (content: string, id: number) => () =>
      withAddedTokens(tokenizerJson, [{ id, content }], "t.json");
    expect(attempt("<eos>", 258)).toThrow("t.json: has a token '<eos>' already: 257");
    expect(attempt("a", 256)).toThrow("'a' already: 97");
    expect(attempt("<eos>", 257)).not.toThrow();
  });
});

describe("tokenizer_config.json", () => {
  const tokens = [{ id: 7, content: "<rf>" }];

  it("lists the token among the special ones", () => {
    expect(withSpecialTokens({ a: 1 }, tokens)).toEqual({ a: 1, additional_special_tokens: ["<rf>"] });
    expect(withSpecialTokens({ extra_special_tokens: ["<x>"] }, tokens)).toEqual({
      extra_special_tokens: ["<x>", "<rf>"],
    });
    const config = withSpecialTokens({ added_tokens_decoder: { 3: { content: "<s>" } } }, tokens);
    expect(config.added_tokens_decoder).toMatchObject({
      3: { content: "<s>" },
      7: { content: "<rf>", special: true },
    });
  });

  it("renames the one in its place", () => {
    const config = withSpecialTokens(
      {
        added_tokens_decoder: { 7: { content: "<old>", special: false } },
        additional_special_tokens: ["<x>", { content: "<old>" }],
      },
      tokens,
    );
    expect(config.added_tokens_decoder).toMatchObject({ 7: { content: "<rf>", special: true } });
    expect(config.additional_special_tokens).toEqual(["<x>", "<rf>"]);
  });
});
