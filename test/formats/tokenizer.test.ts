import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../src/errors.js";
import { byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { huggingFaceTokenizer } from "../../src/formats/hf-tokenizer.js";
import { llama2cTokenizer, type Piece, readLlama2cTokenizer } from "../../src/formats/llama2c-tokenizer.js";
import { bytesSource } from "../../src/formats/source.js";
import { byteTokenizer, StreamDecoder, type Tokenizer } from "../../src/tokenizer.js";
import { rejection } from "./helpers.js";

const anyText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme", maxLength: 40 }),
);

function stream(tokenizer: Tokenizer, ids: readonly number[], previous: number | null = null): string[] {
  const decoder = new StreamDecoder(tokenizer, previous);
  return [...ids.map((id) => decoder.push(id)), decoder.flush()];
}

const bytes = (text: string) => new TextEncoder().encode(text);

/** A vocabulary in the order of llama2.c: specials, bytes, then pieces with falling scores. */
function piecesOf(words: readonly string[]): Piece[] {
  const specials = ["<unk>", "\n<s>\n", "\n</s>\n"];
  const byteNames = Array.from(
    { length: 256 },
    (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`,
  );
  return [
    ...[...specials, ...byteNames].map((text) => ({ bytes: bytes(text), score: 0 })),
    ...words.map((text, i) => ({ bytes: bytes(text), score: -i })),
  ];
}

/** run.c's search: the best pair over the whole text, again and again. */
function mergeNaively(pieces: readonly Piece[], ids: number[]): number[] {
  const text = (id: number) => new TextDecoder().decode(pieces[id]?.bytes);
  const index = new Map(pieces.map((_, id) => [text(id), id] as const).slice(259));
  const list = [...ids];
  for (;;) {
    let best = { score: Number.NEGATIVE_INFINITY, at: -1, id: -1 };
    for (let i = 0; i + 1 < list.length; i++) {
      if ((list[i] ?? 0) < 259 || (list[i + 1] ?? 0) < 259) continue;
      const id = index.get(text(list[i] ?? 0) + text(list[i + 1] ?? 0));
      const score = id === undefined ? Number.NEGATIVE_INFINITY : (pieces[id]?.score ?? 0);
      if (id !== undefined && score > best.score) best = { score, at: i, id };
    }
    if (best.at < 0) return list;
    list.splice(best.at, 2, best.id);
  }
}

const spm = piecesOf([
  "ab",
  "abc",
  "bc",
  "aa",
  "aaa",
  " a",
  "a b",
  "é",
  "ca",
  " ",
  "a",
  "b",
  "c",
  "\n",
  "<",
  ">",
  "s",
  "/",
  "\n<",
  "s>",
  "<s",
  "<s>",
  "\n<s>",
  "\n</s>",
]);

describe("llama2.c tokenizer", () => {
  const tokenizer = llama2cTokenizer(spm);

  test("any text comes back after BOS, the added space taken away", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode([1, ...tokenizer.encode(text)])).toBe(text);
      }),
    );
  });

  test.each([
    ["many words", spm],
    [
      "equal scores",
      piecesOf(["aa", " ", "a", "b", "bab", "ab", "ba"]).map((piece) => ({ ...piece, score: 0 })),
    ],
  ])("merges in the order of run.c, leftmost first: %s", (_, pieces) => {
    const merging = llama2cTokenizer(pieces);
    const idOf = (text: string) =>
      pieces.findIndex((piece) => new TextDecoder().decode(piece.bytes) === text);
    const text = fc.string({ unit: fc.constantFrom("a", "b", " ", "x"), minLength: 1, maxLength: 60 });
    fc.assert(
      fc.property(text, (value) => {
        const characters = [...` ${value}`].map((c) => (c === "x" ? 3 + 120 : idOf(c)));
        expect(merging.encode(value)).toEqual(mergeNaively(pieces, characters));
      }),
    );
  });

  test("special tokens and byte names in a text stay text", () => {
    for (const text of ["\n<s>\n", "\n</s>\n", "<unk>", "<0x41>", "a<s>b"]) {
      const ids = tokenizer.encode(text);
      expect(ids.filter((id) => id < 3)).toEqual([]);
      expect(tokenizer.decode([1, ...ids])).toBe(text);
    }
    expect(tokenizer.encode("")).toEqual([]);
  });

  test("special tokens are taken for what they are where that is asked for, but not behind a guard", () => {
    const special = { special: true, guard: "!" };
    expect(tokenizer.encode("ab<s>c", special)).toEqual([
      ...tokenizer.encode("ab"),
      1,
      ...tokenizer.encode("c"),
    ]);
    expect(tokenizer.encode("ab!<s>c", special)).toEqual(tokenizer.encode("ab<s>c"));
    expect(tokenizer.encode("<unk></s>", special)).toEqual([0, 2]);
  });

  test("a space is taken away after BOS only", () => {
    const [first = 0] = tokenizer.encode("a");
    expect(tokenizer.decode([1, first, first])).toBe("a a");
    expect(tokenizer.decode([first])).toBe(" a");
    expect(stream(tokenizer, [first], 1).join("")).toBe("a");
  });

  test("ids outside the vocabulary are refused", () => {
    for (const id of [-1, spm.length, 0.5, Number.NaN])
      expect(() => tokenizer.decode([id])).toThrow(RangeError);
  });

  const fileBytes = (pieces: readonly Piece[]) => {
    const parts = pieces.flatMap((piece) => {
      const head = new DataView(new ArrayBuffer(8));
      head.setFloat32(0, piece.score, true);
      head.setInt32(4, piece.bytes.length, true);
      return [new Uint8Array(head.buffer), piece.bytes];
    });
    return Uint8Array.from(Buffer.concat([Uint8Array.of(7, 0, 0, 0), ...parts]));
  };

  test("the file is read, and refused where it has not exactly the vocabulary", async () => {
    const file = fileBytes(spm);
    const read = (data: Uint8Array, size: number) => readLlama2cTokenizer(bytesSource("t.bin", data), size);
    expect((await read(file, spm.length)).encode("abc é")).toEqual(tokenizer.encode("abc é"));
    const cases: [Uint8Array, number][] = [
      [file, spm.length - 1],
      [file, spm.length + 1],
      [file.subarray(0, file.length - 1), spm.length],
      [file.slice().fill(0xff, 8, 12), spm.length],
      [file.slice().fill(0x7f, 8, 12), spm.length],
      [file.slice().fill(0xff, 4, 8), spm.length],
      [new Uint8Array(0), spm.length],
    ];
    for (const [data, size] of cases) {
      const error = await rejection(read(data, size));
      expect(error).toBeInstanceOf(FormatError);
      expect(error.message).toMatch(/^t\.bin: /);
    }
  });
});

describe("byte tokenizer", () => {
  const own = byteTokenizer();
  const { tokenizerJson, tokenizerConfig } = byteTokenizerFiles();
  const library = huggingFaceTokenizer(
    tokenizerJson as Record<string, unknown>,
    tokenizerConfig as Record<string, unknown>,
    "tokenizer.json",
  );

  test("any text comes back", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(own.decode(own.encode(text))).toBe(text);
      }),
    );
  });

  test("its files give Hugging Face's library the same ids", () => {
    expect(library.vocabSize).toBe(own.vocabSize);
    expect(library.bosId).toBe(own.bosId);
    const texts = fc.oneof(anyText, fc.constantFrom("<bos>", "a<eos>b", " lead", "don't", "\uFEFFx", "\0"));
    fc.assert(
      fc.property(texts, (text) => {
        expect(library.encode(text)).toEqual(own.encode(text));
        expect(library.decode(own.encode(text))).toBe(text);
      }),
    );
  });

  test("special tokens have no text", () => {
    expect(own.decode([256, 72, 257, 105])).toBe("Hi");
    expect(library.decode([256, 72, 257, 105])).toBe("Hi");
  });
});

describe("streaming", () => {
  const tokenizer = byteTokenizer();

  test("gives out whole characters only, and in all what decode gives", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const parts = stream(tokenizer, tokenizer.encode(text));
        expect(parts.join("")).toBe(text);
        expect(parts.some((part) => part.includes("\uFFFD"))).toBe(text.includes("\uFFFD"));
      }),
    );
  });

  test("bytes that are no UTF-8 become U+FFFD, in a stream as in decode", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(257), { maxLength: 20 }), (ids) => {
        expect(stream(tokenizer, ids).join("")).toBe(tokenizer.decode(ids));
      }),
    );
    expect(stream(tokenizer, [0xe2, 0x82, 0xac, 0xe2, 0x82])).toEqual(["", "", "€", "", "", "\uFFFD"]);
  });
});

describe("Hugging Face tokenizers", () => {
  const special = (id: number, content: string, isSpecial = true) => ({
    id,
    content,
    special: isSpecial,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  });

  /** Llama 2's pipeline: SentencePiece as BPE with byte fallback. */
  const byteNames = Array.from(
    { length: 256 },
    (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`,
  );
  const words = ["▁", "a", "b", "<", "s", ">", "▁a", "ab", "▁ab", "<s", "s>"];
  const vocabulary = ["<unk>", "<s>", "</s>", ...byteNames, ...words];
  const llamaJson = {
    added_tokens: [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>"), special(270, "<tool>", false)],
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      byte_fallback: true,
      fuse_unk: true,
      vocab: Object.fromEntries(vocabulary.map((piece, id) => [piece, id])),
      // A merge that makes a special token's name, as no vocabulary should have it.
      merges: ["▁ a", "a b", "▁a b", "▁ ab", "< s", "s >", "<s >", "< s>"],
    },
  };
  const llama = huggingFaceTokenizer(llamaJson, {}, "tokenizer.json");

  test("SentencePiece style: ids, BOS, prefix space and bytes", () => {
    const id = (piece: string) => vocabulary.indexOf(piece);
    expect(llama.bosId).toBe(1);
    expect(llama.prefixSpace).toBe(true);
    expect(llama.vocabSize).toBe(271);
    expect(llama.encode("ab é")).toEqual([id("▁ab"), id("▁"), id("<0xC3>"), id("<0xA9>")]);
    expect(stream(llama, llama.encode("ab é"), 1)).toEqual(["ab", " ", "", "é", ""]);
    expect([...llama.bytes(id("<0xC3>"))]).toEqual([0xc3]);
    fc.assert(
      fc.property(anyText, (text) => {
        expect(llama.decode([1, ...llama.encode(text)])).toBe(text);
      }),
    );
  });

  test("a special token's name in a text stays text; an added token that is not special is one token", () => {
    for (const text of ["<s>", "a</s>b", "<unk>", "\uD800<s>"]) {
      const ids = llama.encode(text);
      expect(ids.some((id) => id < 3)).toBe(false);
      expect(llama.decode([1, ...ids])).toBe(text.replace("\uD800", "\uFFFD"));
    }
    expect(llama.encode("<s>")).toEqual(["▁", "<s", ">"].map((piece) => vocabulary.indexOf(piece)));
    expect(llama.encode("<tool>")).toEqual([270]);
    expect(llama.decode([270])).toBe("<tool>");
  });

  test("add_bos_token decides over the post-processor", () => {
    expect(huggingFaceTokenizer(llamaJson, { add_bos_token: false }, "t").bosId).toBeNull();
    const bare = { ...llamaJson, post_processor: null };
    expect(huggingFaceTokenizer(bare, {}, "t").bosId).toBeNull();
    expect(
      huggingFaceTokenizer(bare, { add_bos_token: true, bos_token: { content: "<s>" } }, "t").bosId,
    ).toBe(1);
  });

  test("Unigram: a special token in the vocabulary is not found in a text", () => {
    const unigram = huggingFaceTokenizer(
      {
        added_tokens: [special(0, "<unk>"), special(1, "<s>")],
        normalizer: null,
        pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
        post_processor: null,
        decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
        model: {
          type: "Unigram",
          unk_id: 0,
          vocab: [
            ["<unk>", 0],
            ["<s>", 0],
            ["▁", -2],
            ["<", -3],
            ["s", -3],
            [">", -3],
            ["▁s", -2],
          ],
        },
      },
      {},
      "tokenizer.json",
    );
    expect(unigram.encode("<s> s")).toEqual([2, 3, 4, 5, 6]);
    expect(unigram.decode([2, 3, 4, 5, 6])).toBe(" <s> s");
  });

  test("spaces before punctuation are kept, whatever clean_up_tokenization_spaces says", () => {
    const { tokenizerJson } = byteTokenizerFiles();
    const messy = huggingFaceTokenizer(
      tokenizerJson as Record<string, unknown>,
      { clean_up_tokenization_spaces: true },
      "t",
    );
    expect(messy.decode(messy.encode("a , b ."))).toBe("a , b .");
  });

  test("a malformed file is refused by name and field", () => {
    const cases: [Record<string, unknown>, RegExp][] = [
      [{}, /'model' is missing/],
      [{ model: { type: "BPE", vocab: 1 } }, /'model\.vocab'/],
      [{ model: { type: "BPE", vocab: { a: -1 }, merges: [] } }, /'model\.vocab'/],
      [{ added_tokens: [{ id: "x", content: "a" }] }, /'added_tokens\.0\.id'/],
    ];
    for (const [json, message] of cases) {
      expect(() => huggingFaceTokenizer(json, {}, "tokenizer.json")).toThrow(FormatError);
      expect(() => huggingFaceTokenizer(json, {}, "tokenizer.json")).toThrow(message);
    }
    const unknown = { model: { type: "Morse", vocab: {} } };
    expect(() => huggingFaceTokenizer(unknown, {}, "tokenizer.json")).toThrow(/'Morse'/);
  });
});
