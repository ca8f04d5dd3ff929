import { describe, expect, it } from "vitest";
import {
  type FlagSequence,
  flagBatches,
  promptAndResponse,
  toSequence,
  usableSequences,
} from "../../src/flag/data.js";
import { type FlagBatch, layout } from "../../src/flag/loss.js";
import { byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { huggingFaceTokenizer } from "../../src/formats/hf-tokenizer.js";
import type { Example } from "../../src/formats/jsonl.js";
import { Random } from "../../src/random.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import type { BatchSource } from "../../src/train/batches.js";
import { chatTokenizer, TEMPLATES, type TemplateName } from "../formats/chats.js";

const bytes = byteTokenizer();
const bytesOf = (text: string) => [...new TextEncoder().encode(text)];
const LIMITS = { maxResponse: 100, contextLength: 64, minOffset: 0 };

/** Byte-level BPE with " c", " cd" and "bc" as tokens 258 to 260, and no BOS. */
function mergingTokenizer() {
  const { tokenizerJson, tokenizerConfig } = byteTokenizerFiles() as {
    tokenizerJson: Json;
    tokenizerConfig: Json;
  };
  const model = tokenizerJson.model as Json;
  const vocab = { ...(model.vocab as Json), Ġc: 258, Ġcd: 259, bc: 260 };
  const json = {
    ...tokenizerJson,
    post_processor: null,
    model: { ...model, vocab, merges: ["Ġ c", "Ġc d", "b c"] },
  };
  return huggingFaceTokenizer(json, tokenizerConfig, "tokenizer.json");
}
type Json = Record<string, unknown>;

describe("an example as ids", () => {
  it("has a BOS, and a space between prompt and response where neither has one", () => {
    expect(toSequence(bytes, { prompt: "ab", response: "cd" }, LIMITS)).toEqual({
      prompt: [256, ...bytesOf("ab")],
      response: bytesOf(" cd"),
      onset: 0,
    });
    expect(toSequence(bytes, { prompt: "ab\n", response: "cd" }, LIMITS).response).toEqual(bytesOf("cd"));
    expect(toSequence(bytes, { prompt: "ab", response: " cd" }, LIMITS).response).toEqual(bytesOf(" cd"));
    expect(toSequence(bytes, { prompt: "ab" }, LIMITS)).toEqual({
      prompt: [256, ...bytesOf("ab")],
      response: [],
      onset: 0,
    });
  });

  it("is encoded as one text: a token over the border is the response's", () => {
    const found = toSequence(mergingTokenizer(), { prompt: "ab ", response: "cd" }, LIMITS);
    expect(found).toEqual({ prompt: bytesOf("ab"), response: [259], onset: 0 });
  });

  it("of a conversation is its last answer, and what stands before it", () => {
    const messages = [
      { role: "system", content: "Be kind." },
      { role: "user", content: "Hi" },
    ];
    const prompt = "system: Be kind.\nuser: Hi\nassistant:";
    expect(promptAndResponse({ messages })).toEqual({ prompt, response: "" });
    const answered = { messages: [...messages, { role: "assistant", content: "Hello" }] };
    expect(promptAndResponse(answered)).toEqual({ prompt, response: "Hello" });
  });

  it("is cut to the limit, and to the context less one place for the flag", () => {
    const example = { prompt: "ab", response: "0123456789" };
    expect(toSequence(bytes, example, { ...LIMITS, maxResponse: 4 }).response).toEqual(bytesOf(" 012"));
    const { prompt, response } = toSequence(bytes, example, { ...LIMITS, contextLength: 9 });
    expect([prompt.length, response.length]).toEqual([3, 5]);
    expect(toSequence(bytes, example, { ...LIMITS, contextLength: 3 }).response).toEqual([]);
  });
});

describe("a conversation for a model with a chat template", () => {
  const user = { role: "user", content: " ask <|im_end|>" };
  const answered = (content: string) => ({ messages: [user, { role: "assistant", content }] });
  const read = (name: TemplateName, example: Example) => {
    const tokenizer = chatTokenizer(TEMPLATES[name]);
    const { prompt, response, onset } = toSequence(tokenizer, example, { ...LIMITS, contextLength: 99 });
    const ids = (text: string) => tokenizer.encode(text, { special: true, guard: "!" });
    return { prompt, response, onset, ids };
  };

  it.each([
    ["chatml", "<|im_start|>user\n ask !<|im_end|><|im_end|>\n<|im_start|>assistant\n", "a b"],
    ["headers", "<bos><|start|>user<|end|>\n\nask !<|im_end|><|eot|><|start|>assistant<|end|>\n\n", "a b"],
    ["instructions", "<bos>[INST]  ask !<|im_end|>[/INST]", " a b"],
  ] as const)(
    "%s: the response is what the model writes, without the markup that closes it",
    (name, asked, said) => {
      const { prompt, response, ids } = read(name, answered("a b\n"));
      expect(prompt).toEqual(ids(asked));
      expect(response).toEqual(ids(said));
      expect(read(name, { messages: [user] })).toMatchObject({ prompt: ids(asked), response: [] });
      expect(read(name, answered(" "))).toMatchObject({ prompt: ids(asked), response: [] });
    },
  );

  it("begins the response where the template goes another way than for a prompt alone", () => {
    const { prompt, response, ids } = read("thinking", answered("a</think>\nb"));
    expect(prompt).toEqual(ids("<|im_start|>user\n ask !<|im_end|><|im_end|>\n<|im_start|>assistant\n"));
    expect(response).toEqual(ids("b"));
  });

  it("counts the onset in the response's own characters", () => {
    const onset = (content: string, onset: number) =>
      read("instructions", { ...answered(content), onset }).onset;
    // A token for the template's space, then one for each character.
    expect([onset("xyz", 0), onset("xyz", 2), onset("xyz  ", 5)]).toEqual([0, 3, 4]);
  });
});

describe("the onset", () => {
  const onsetOf = (
    tokenizer: ReturnType<typeof mergingTokenizer>,
    prompt: string,
    response: string,
    onset: number,
  ) => toSequence(tokenizer, { prompt, response, onset }, LIMITS).onset;

  it("is the number of tokens that cover it, the space before the response among them", () => {
    const response = "cé€𝄞d";
    for (let onset = 0; onset <= response.length; onset++) {
      // Half of a surrogate pair needs the first of its four bytes.
      const covered = onset === 4 ? 7 : bytesOf(response.slice(0, onset)).length;
      expect(onsetOf(bytes, "ab", response, onset), `${onset}`).toBe(onset === 0 ? 0 : covered + 1);
      expect(onsetOf(bytes, "ab\n", response, onset), `${onset}`).toBe(covered);
    }
  });

  it("goes by tokens, not by characters", () => {
    const tokenizer = mergingTokenizer();
    // " cd", "c", "d"
    expect([0, 1, 2, 3, 4].map((onset) => onsetOf(tokenizer, "ab", "cdcd", onset))).toEqual([0, 1, 1, 2, 3]);
    // "bc" is one token, of which the prompt's share counts for nothing.
    expect([0, 1, 2].map((onset) => onsetOf(tokenizer, "b", " cd", onset))).toEqual([0, 1, 1]);
  });

  it("is the least offset where an example has none", () => {
    const found = toSequence(bytes, { prompt: "a", response: "bcd" }, { ...LIMITS, minOffset: 2 });
    expect(found.onset).toBe(2);
    expect(
      toSequence(bytes, { prompt: "a", response: "bcd", onset: 1 }, { ...LIMITS, minOffset: 9 }).onset,
    ).toBe(2);
  });
});

describe("what cannot be used", () => {
  const examples: Example[] = [
    { prompt: "a", response: "bcdef" },
    { prompt: "a" },
    { prompt: "a", response: "bcdef", onset: 5 },
    { prompt: "a", response: "bcdef", onset: 2 },
    { prompt: "", response: "bcdef" },
  ];
  it("is left out and counted", () => {
    const options = { ...LIMITS, maxResponse: 4 };
    const harmful = usableSequences(bytes, examples, "harmful", options);
    // No response; an onset past the cut.
    expect(harmful.leftOut).toBe(2);
    expect(harmful.sequences.map(({ onset }) => onset)).toEqual([0, 3, 0]);
    expect(harmful.sequences.map(({ index }) => index)).toEqual([0, 3, 4]);
    // A benign example has no onset to place.
    expect(usableSequences(bytes, examples, "benign", options)).toMatchObject({ leftOut: 1 });
    // Without a BOS nothing stands before an empty prompt's response.
    expect(usableSequences(mergingTokenizer(), examples, "benign", options).leftOut).toBe(2);
  });
});

describe("batches", () => {
  const sequence = (id: number, length: number, onset: number): FlagSequence => ({
    prompt: [id],
    response: Array.from({ length }, (_, i) => i),
    onset,
  });

  it("place the flag uniformly on [onset, n - 1]", () => {
    const draws = 8000;
    const batches = flagBatches([sequence(1, 10, 3)], [], { harmful: 1, benign: 0 }, new Random(5));
    const counts = new Map<number, number>();
    for (let i = 0; i < draws; i++) {
      const at = batches.next().harmful[0]?.insertAt ?? -1;
      counts.set(at, (counts.get(at) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual([3, 4, 5, 6, 7, 8, 9]);
    const expected = draws / 7;
    const chiSquare = [...counts.values()].reduce(
      (sum, count) => sum + (count - expected) ** 2 / expected,
      0,
    );
    // 0.999 of chi-square with 6 degrees of freedom.
    expect(chiSquare).toBeLessThan(22.46);
  });

  it("bring a new seed for the dropout each time, where it is wanted", () => {
    const seeds = (dropout: boolean) => {
      const batches = flagBatches([sequence(1, 4, 0)], [], { harmful: 1, benign: 0, dropout }, new Random(5));
      return Array.from({ length: 5 }, () => batches.next().dropoutSeed);
    };
    expect(new Set(seeds(true)).size).toBe(5);
    expect(seeds(true)).toEqual(seeds(true));
    expect(seeds(false)).toEqual(new Array(5).fill(undefined));
  });

  it("have one place where there is only one", () => {
    const batches = flagBatches([sequence(1, 4, 3)], [], { harmful: 1, benign: 0 }, new Random(5));
    expect(Array.from({ length: 5 }, () => batches.next().harmful[0]?.insertAt)).toEqual([3, 3, 3, 3, 3]);
  });

  it("show each example once before any comes again", () => {
    const harmful = [1, 2, 3, 4, 5].map((id) => sequence(id, 3, 0));
    const benign = [6, 7, 8].map((id) => sequence(id, 3, 0));
    const batches = flagBatches(harmful, benign, { harmful: 2, benign: 3 }, new Random(1));
    const seen: number[] = [];
    for (let i = 0; i < 5; i++) {
      const batch = batches.next();
      expect(batch.benign.map(({ prompt }) => prompt[0]).sort()).toEqual([6, 7, 8]);
      seen.push(...batch.harmful.map(({ prompt }) => prompt[0] as number));
    }
    expect(seen.slice(0, 5).sort()).toEqual([1, 2, 3, 4, 5]);
    expect(seen.slice(5).sort()).toEqual([1, 2, 3, 4, 5]);
    expect(flagBatches([], benign, { harmful: 2, benign: 1 }, new Random(1)).next().harmful).toEqual([]);
  });
});

describe("a source of batches", () => {
  const sequences = (from: number, count: number): FlagSequence[] =>
    Array.from({ length: count }, (_, i) => ({
      prompt: [from + i],
      response: [1, 2, 3],
      onset: 0,
      index: i,
    }));
  const source = (seed: number) =>
    flagBatches(sequences(10, 5), sequences(20, 4), { harmful: 2, benign: 3 }, new Random(seed));
  const draws = (batches: BatchSource<FlagBatch>, count: number) =>
    Array.from({ length: count }, () => batches.next());

  it("goes on from its state as JSON, in the midst of a deck too", () => {
    for (let before = 0; before < 8; before++) {
      const whole = source(1);
      draws(whole, before);
      const state = JSON.stringify(whole.state);
      const rest = draws(whole, 9);
      // The state is of that moment, and the source that takes it up has drawn others.
      const other = source(2);
      draws(other, 3);
      other.state = JSON.parse(state);
      expect(draws(other, 9)).toEqual(rest);
      expect(draws(source(2), 9)).not.toEqual(rest);
    }
  });

  it("names the examples of a batch by their places in the data", () => {
    const batch = {
      harmful: [{ prompt: [1], response: [2], onset: 0, insertAt: 0, index: 7 }],
      benign: [3, 0].map((index) => ({ prompt: [1], response: [2], index })),
    };
    expect(source(1).describe?.(batch)).toBe("harmful example 7, benign examples 3, 0, counted from 0");
    expect(source(1).describe?.({ ...batch, harmful: [] })).toBe("benign examples 3, 0, counted from 0");
  });
});

describe("the layout", () => {
  it("has the rows that the three terms are about", () => {
    const harmful = [
      { prompt: [1, 2], response: [3, 4, 5, 6], onset: 1, insertAt: 2 },
      { prompt: [1], response: [7, 8], onset: 0, insertAt: 1 },
    ];
    const benign = [{ prompt: [6], response: [7, 8] }];
    const found = layout({ harmful, benign }, 99);
    expect(found).toMatchObject({ sequences: 3, tokens: 11, post: 3 });
    // The last token of each is only predicted.
    expect([...found.ids]).toEqual([1, 2, 3, 4, 99, 5, 1, 7, 99, 0, 0, 0, 6, 7, 0, 0, 0, 0]);
    expect([...found.refIds]).toEqual([1, 2, 3, 4, 5, 1, 7, 0, 0, 0, 6, 7, 0, 0, 0]);
    // After 3 and after 4 of the first; after 1 and after 7 of the second.
    expect(found.ce).toEqual([2, 3, 6, 7]);
    // After the flag and after 5; after the flag; after 6 and after 7.
    expect(found.kl).toEqual([4, 5, 8, 12, 13]);
    // After 4 and after 5; after 7; after 6 and after 7.
    expect(found.refKl).toEqual([3, 4, 6, 10, 11]);
  });

  it("of the flag before the first token, and behind all but the last", () => {
    const at = (onset: number, insertAt: number) =>
      layout({ harmful: [{ prompt: [1], response: [3, 4], onset, insertAt }], benign: [] }, 99);
    expect(at(0, 0)).toMatchObject({ ce: [0], kl: [1, 2], refKl: [0, 1], post: 2 });
    expect([...at(0, 0).ids]).toEqual([1, 99, 3]);
    expect(at(1, 1)).toMatchObject({ ce: [1], kl: [2], refKl: [1], post: 1 });
    expect([...at(1, 1).ids]).toEqual([1, 3, 99]);
  });
});
