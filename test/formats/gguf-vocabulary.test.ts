import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError, UnsupportedError } from "../../src/errors.js";
import { byteCharacters, byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { openGguf } from "../../src/formats/gguf.js";
import { ggufTokenizer } from "../../src/formats/gguf-tokenizer.js";
import { type GgufVocabulary, readGgufVocabulary } from "../../src/formats/gguf-vocabulary.js";
import { vocabularyOfJson, vocabularyOfLlama2c } from "../../src/formats/gguf-vocabulary-of.js";
import { metadataFields } from "../../src/formats/gguf-weights.js";
import { ggufChunks } from "../../src/formats/gguf-write.js";
import { huggingFaceTokenizer } from "../../src/formats/hf-tokenizer.js";
import { llama2cTokenizer } from "../../src/formats/llama2c-tokenizer.js";
import { bytesSource } from "../../src/formats/source.js";
import { weightShapes } from "../../src/model/config.js";
import { weightOfValues } from "../../src/model/stored-weight.js";
import { ggufFile, type TestFile, tinyBpeGguf, tinyGguf } from "./gguf-file.js";
import { concatenate, someWeights, tinyLlama } from "./helpers.js";

type Json = Record<string, unknown>;

const special = (id: number, content: string, isSpecial = true) => ({
  ...{ id, content, special: isSpecial, single_word: false, lstrip: false, rstrip: false, normalized: false },
});

/** Pieces, then one for each merge, then the added tokens. */
function vocabOf(pieces: readonly string[], merges: readonly [string, string][]): Record<string, number> {
  return Object.fromEntries(
    [...pieces, ...merges.map((pair) => pair.join(""))].map((piece, id) => [piece, id]),
  );
}

const MERGES: [string, string][] = [
  ["a", "b"],
  ["ab", "a"],
  ["b", "c"],
  ["Ġ", "a"],
  ["Ġ", "ab"],
  ["1", "2"],
  ["12", "3"],
];

/** A byte-level BPE with those pre-tokenizers. */
function byteLevelJson(preTokenizers: readonly Json[], ignoreMerges = false, merges = MERGES): Json {
  const vocab = vocabOf(byteCharacters(), merges);
  const size = Object.keys(vocab).length;
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  return {
    added_tokens: [special(size, "<|end|>"), special(size + 1, "<kept>", false)],
    normalizer: null,
    pre_tokenizer: { type: "Sequence", pretokenizers: preTokenizers },
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", vocab, merges: merges.map((pair) => pair.join(" ")), ignore_merges: ignoreMerges },
  };
}

const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
const byteLevel = (useRegex: boolean) => ({
  type: "ByteLevel",
  add_prefix_space: false,
  use_regex: useRegex,
});

/** As the files of these models have them. */
const LLAMA_3 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const QWEN_2 = LLAMA_3.replace("\\p{N}{1,3}", "\\p{N}");
const PRE: readonly (readonly [string, Json[], boolean])[] = [
  ["gpt-2", [byteLevel(true)], false],
  ["smollm", [{ type: "Digits", individual_digits: true }, byteLevel(true)], false],
  ["llama-bpe", [split(LLAMA_3), byteLevel(false)], true],
  ["dbrx", [split(LLAMA_3), byteLevel(false)], false],
  ["qwen2", [split(QWEN_2), byteLevel(false)], false],
];

/** Texts of what tokenizers cut at, and what they merge. */
const texts = fc
  .array(
    fc.constantFrom(
      "a",
      "b",
      "c",
      "ab",
      "aba",
      "bc",
      " ",
      "  ",
      "\n",
      "\r\n",
      "1",
      "123",
      "'s",
      "'S",
      "é",
      "日",
      "!",
      "<|end|>",
      "<kept>",
    ),
    {
      maxLength: 12,
    },
  )
  .map((parts) => parts.join(""));

function expectSameIds(
  ours: { encode(text: string): number[] },
  theirs: { encode(text: string): number[] },
): void {
  fc.assert(
    fc.property(texts, (text) => {
      expect(ours.encode(text), JSON.stringify(text)).toEqual(theirs.encode(text));
    }),
    { seed: 1, numRuns: 150 },
  );
}

describe("a byte-level tokenizer.json", () => {
  test.each(PRE)(
    "%s is told by how it cuts words, and gives the same ids",
    async (name, cuts, ignoreMerges) => {
      const json = byteLevelJson(cuts, ignoreMerges);
      const vocabulary = vocabularyOfJson(json, null, null, "t.json");
      expect(vocabulary).toMatchObject({ kind: "gpt2", pre: name, addBos: false });
      expectSameIds(await ggufTokenizer(vocabulary, "m.gguf"), huggingFaceTokenizer(json, {}, "t.json"));
    },
  );

  test("without merges it does not matter", async () => {
    const { tokenizerJson, tokenizerConfig } = byteTokenizerFiles();
    const vocabulary = vocabularyOfJson(tokenizerJson as Json, 256, null, "t.json");
    expect(vocabulary).toMatchObject({ kind: "gpt2", pre: "gpt-2", merges: [], bosId: 256, addBos: true });
    const tokenizer = await ggufTokenizer(vocabulary, "m.gguf");
    expect(tokenizer.bosId).toBe(256);
    expectSameIds(tokenizer, huggingFaceTokenizer(tokenizerJson as Json, tokenizerConfig as Json, "t.json"));
  });

  test.each<[string, Json, RegExp]>([
    [
      "words cut otherwise",
      byteLevelJson([split("\\w+"), byteLevel(false)]),
      /'pre_tokenizer' cuts words by/,
    ],
    ["another pre-tokenizer", byteLevelJson([{ type: "Punctuation" }, byteLevel(false)]), /"Punctuation"/],
    [
      "a normalizer",
      { ...byteLevelJson([byteLevel(true)]), normalizer: { type: "Lowercase" } },
      /'Lowercase'/,
    ],
    ["Unigram", { added_tokens: [], model: { type: "Unigram", vocab: [["a", 0]] } }, /'Unigram'/],
  ])("%s is refused", (_, json, message) => {
    expect(() => vocabularyOfJson(json, null, null, "t.json")).toThrow(UnsupportedError);
    expect(() => vocabularyOfJson(json, null, null, "t.json")).toThrow(message);
  });

  test("merges that are none", () => {
    const json = byteLevelJson([byteLevel(true)]);
    for (const merges of [["a b c"], [["a"]], 3]) {
      const broken = { ...json, model: { ...(json.model as Json), merges } };
      expect(() => vocabularyOfJson(broken, null, null, "t.json")).toThrow(FormatError);
    }
  });
});

/** SentencePiece's BPE as converters write it: `<unk>`, `<s>`, `</s>`, the bytes, characters, then merges. */
function sentencePieceJson(): Json {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const merges: [string, string][] = [
    ["a", "b"],
    ["▁", "a"],
    ["▁", "ab"],
    ["ab", "a"],
    ["b", "c"],
    ["▁", "▁"],
  ];
  const vocab = vocabOf(["<unk>", "<s>", "</s>", ...bytes, "▁", "a", "b", "c", "1", "é"], merges);
  const size = Object.keys(vocab).length;
  return {
    added_tokens: [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>"), special(size, "<|end|>")],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: { type: "BPE", vocab, merges, unk_token: "<unk>", fuse_unk: true, byte_fallback: true },
  };
}

test("SentencePiece's BPE in a tokenizer.json gives the same ids by scores", async () => {
  const json = sentencePieceJson();
  const vocabulary = vocabularyOfJson(json, 1, "{{ messages }}", "t.json");
  expect(vocabulary).toMatchObject({
    ...{ kind: "llama", bosId: 1, unknownId: 0, prefixSpace: true, chatTemplate: "{{ messages }}" },
  });
  expect([
    ...Array.from(vocabulary.types).slice(0, 4),
    vocabulary.types[vocabulary.types.length - 1],
  ]).toEqual([2, 3, 3, 6, 3]);
  const tokenizer = await ggufTokenizer(vocabulary, "m.gguf");
  expectSameIds(tokenizer, huggingFaceTokenizer(json, {}, "t.json"));
  expect(tokenizer.decode([1, ...tokenizer.encode("ab é日")])).toBe("ab é日");
});

test("llama2.c's tokenizer gives the same ids", async () => {
  const encoder = new TextEncoder();
  const names = ["<unk>", "\n<s>\n", "\n</s>\n", "<0x0A>", " ", "a", "b", "c", "ab", " a", "bc", "aba"];
  const pieces = names.map((name, id) => ({ bytes: encoder.encode(name), score: -id }));
  const vocabulary = vocabularyOfLlama2c(pieces);
  expect(vocabulary.tokens.slice(0, 6)).toEqual(["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a"]);
  expectSameIds(await ggufTokenizer(vocabulary, "m.gguf"), llama2cTokenizer(pieces));
});

describe("in a file", () => {
  const written = async (vocabulary: GgufVocabulary, vocabSize: number) => {
    const config = { ...tinyLlama, vocabSize };
    const weights = someWeights(config);
    const shapes = weightShapes(config);
    const weight = (name: string) =>
      weightOfValues(shapes.get(name) ?? [], async () => weights.get(name) ?? new Float32Array());
    const bytes = await concatenate(ggufChunks({ config, weight }, { vocabulary }));
    return readGgufVocabulary(metadataFields(await openGguf(bytesSource("m.gguf", bytes))));
  };

  test.each([
    ["SentencePiece's", vocabularyOfJson(sentencePieceJson(), 1, "{{ x }}", "t.json")],
    ["a byte-level one", vocabularyOfJson(byteLevelJson([byteLevel(true)]), null, null, "t.json")],
  ])("%s comes back, with a token for each row of the embedding", async (_, vocabulary) => {
    const { length } = vocabulary.tokens;
    const read = await written(vocabulary, length + 2);
    expect(read?.tokens).toEqual([...vocabulary.tokens, `[PAD${length}]`, `[PAD${length + 1}]`]);
    expect([...Array.from(read?.types ?? [])]).toEqual([...Array.from(vocabulary.types), 5, 5]);
    expect(read).toMatchObject({
      kind: vocabulary.kind,
      addBos: vocabulary.addBos,
      chatTemplate: vocabulary.chatTemplate,
    });
    if (vocabulary.kind === "gpt2")
      expect(read).toMatchObject({ pre: vocabulary.pre, merges: vocabulary.merges });
    const fewer = await written(vocabulary, length - 1);
    expect(fewer?.tokens).toEqual(vocabulary.tokens.slice(0, -1));
  });

  const fieldsOf = async (file: TestFile) =>
    metadataFields(await openGguf(bytesSource("m.gguf", ggufFile(file).bytes)));
  const without = (file: TestFile, ...keys: string[]): TestFile => ({
    ...file,
    metadata: (file.metadata ?? []).filter(([key]) => !keys.includes(key)),
  });
  const withField = (file: TestFile, field: NonNullable<TestFile["metadata"]>[number]): TestFile => ({
    ...file,
    metadata: [...(without(file, field[0]).metadata ?? []), field],
  });
  const at = (name: string) => `tokenizer.ggml.${name}`;

  test("what no text becomes, and what every text does that has it", async () => {
    const vocabulary = readGgufVocabulary(await fieldsOf(tinyGguf));
    if (!vocabulary) throw new Error("no vocabulary");
    const tokenizer = await ggufTokenizer(vocabulary, "m.gguf");
    expect(tokenizer.encode("<s>")).not.toContain(1);
    expect(tokenizer.encode("<|im_end|>")).not.toContain(9);
    // <x> is user-defined: whole, and what follows it begins anew.
    expect(tokenizer.encode("a<x>a")).toEqual([8, 11, 8]);
    // Bytes that have no token are the unknown one.
    expect(tokenizer.encode("z")).toEqual([4, 0]);
    expect(tokenizer.bytes(3)).toEqual(Uint8Array.of(0x61));
    expect(tokenizer.tokenId("<|im_end|>")).toBe(9);
  });

  test("BOS where the file says so, or llama.cpp takes it for granted", async () => {
    const bosOf = async (file: TestFile) => readGgufVocabulary(await fieldsOf(file))?.addBos;
    expect(await bosOf(tinyGguf)).toBe(true);
    expect(await bosOf(tinyBpeGguf)).toBe(true);
    expect(await bosOf(withField(tinyBpeGguf, [at("pre"), ["string", "gpt-2"]]))).toBe(false);
    expect(await bosOf(withField(tinyGguf, [at("add_bos_token"), ["bool", false]]))).toBe(false);
    expect(await bosOf(without(tinyGguf, at("bos_token_id")))).toBe(false);
  });

  test("none", async () => {
    expect(readGgufVocabulary(await fieldsOf(without(tinyGguf, at("model"))))).toBeNull();
    expect(
      readGgufVocabulary(await fieldsOf(withField(tinyGguf, [at("model"), ["string", "no_vocab"]]))),
    ).toBeNull();
  });

  test.each<[string, TestFile, typeof FormatError | typeof UnsupportedError, RegExp]>([
    [
      "another kind",
      withField(tinyGguf, [at("model"), ["string", "bert"]]),
      UnsupportedError,
      /'tokenizer\.ggml\.model' of 'bert'/,
    ],
    [
      "another way to cut words",
      withField(tinyBpeGguf, [at("pre"), ["string", "nobody"]]),
      UnsupportedError,
      /'tokenizer\.ggml\.pre' of 'nobody'/,
    ],
    [
      "no tokens",
      without(tinyGguf, at("tokens")),
      FormatError,
      /'tokenizer\.ggml\.tokens' must be a list of strings/,
    ],
    [
      "too few scores",
      withField(tinyGguf, [at("scores"), ["f32", [0]]]),
      FormatError,
      /'tokenizer\.ggml\.scores' must be a list of 12/,
    ],
    [
      "too few types",
      withField(tinyGguf, [at("token_type"), ["i32", [1]]]),
      FormatError,
      /'tokenizer\.ggml\.token_type' must be a list of 12/,
    ],
    [
      "no merges",
      without(tinyBpeGguf, at("merges")),
      FormatError,
      /'tokenizer\.ggml\.merges' must be a list/,
    ],
    [
      "a merge of one part",
      withField(tinyBpeGguf, [at("merges"), ["string", ["ab"]]]),
      FormatError,
      /has 'ab', expected two parts/,
    ],
  ])("%s is refused", async (_, file, kind, message) => {
    const fields = await fieldsOf(file);
    expect(() => readGgufVocabulary(fields)).toThrow(kind);
    expect(() => readGgufVocabulary(fields)).toThrow(message);
  });
});
