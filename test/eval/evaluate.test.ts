import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import type { Detector } from "../../src/eval/detector.js";
import { type EvaluationOptions, evaluate } from "../../src/eval/evaluate.js";
import type { Example } from "../../src/formats/jsonl.js";
import type { Model } from "../../src/model/model.js";
import { byteTokenizer } from "../../src/tokenizer.js";
import { script, scripted, scriptedFlag } from "../generate/scripted.js";
import { baseline } from "../model/tiny.js";

const CONTEXT = 14;
const OPTIONS: EvaluationOptions = { maxTokens: 12, generate: false, resamples: 40, seed: 0 };
const bytesOf = (text: string) => [...new TextEncoder().encode(text)];

/** Says "zzzz…", and flags where the text has at least `from` tokens. */
const flagFrom = (model: Model, from: number) =>
  scriptedFlag(
    model,
    Array.from({ length: CONTEXT }, (_, row) => (row + 1 >= from ? 40 : -20)),
  );

let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await baseline();
  model = await scripted(backend, script(258, bytesOf("z".repeat(CONTEXT))), byteTokenizer());
});

const file = (path: string, examples: readonly Example[]) => ({ path, examples });
const adapters = (...froms: number[]) => froms.map((from) => async () => flagFrom(model, from));

// A BOS, "a" and a space stand before these: ten tokens in all, or five.
const harmful = file("h", [
  { prompt: "a", response: "bcdefgh", onset: 2, category: "long", language: "xx" },
  { prompt: "a", response: "bcdefgh", onset: 7, category: "long" },
  { prompt: "a", response: "bc", category: "short" },
]);
const benign = file("b", [
  { prompt: "a", response: "bc", language: "xx" },
  { prompt: "a", response: "bcdefgh" },
]);

describe("an evaluation", () => {
  it("tells where the flag is raised, how late, and among whom", async () => {
    const found = await evaluate({ model, adapters: adapters(8), harmful, benign }, OPTIONS);
    const [flag] = found.detectors;
    // Before token 8 of ten: six of the response are there, the space among them, of which 3 and 8 cover the onset.
    expect(flag?.delays).toEqual([6 - 3, 6 - 8]);
    expect(flag?.flag_rate?.value).toBeCloseTo(2 / 3, 12);
    expect(flag?.false_positive_rate?.value).toBe(0.5);
    // Long ones score 1, short ones about 0: 1 · ½ + ½ · ½ for the long, 0 · ½ + ½ · ½ for the short.
    expect(flag?.auroc?.value).toBeCloseTo((2 * 0.75 + 0.25) / 3, 12);
    expect(
      found.groups.map(({ by, value, harmful: isHarmful, examples }) => [by, value, isHarmful, examples]),
    ).toEqual([
      ["category", "long", true, 2],
      ["category", "short", true, 1],
      ["language", "xx", true, 1],
      ["language", "xx", false, 1],
    ]);
    expect(found.groups.map(({ flag_rate }) => flag_rate.value)).toEqual([1, 0, 1, 0]);
    expect(found.groups.map(({ auroc }) => auroc?.value)).toEqual([0.75, 0.25, 0.75, (2 * 1 + 0.5) / 3]);

    expect(found.along).toHaveLength(9);
    expect(found.along.map(({ harmful: band }) => Math.round(band?.mean ?? -1))).toEqual([
      0, 0, 0, 0, 0, 0, 1, 1, 1,
    ]);
    expect(found.along.map(({ harmful: band }) => band?.count)).toEqual([3, 3, 3, 3, 2, 2, 2, 2, 2]);
    expect(found.along.map(({ benign: band }) => band?.count)).toEqual([2, 2, 2, 2, 1, 1, 1, 1, 1]);
  });

  it("shows conversations token by token", async () => {
    const { examples } = await evaluate({ model, adapters: adapters(8), harmful, benign }, OPTIONS);
    const long = examples.find(({ harmful: isHarmful, onset }) => isHarmful && onset === 3);
    expect(long?.tokens.map(({ text }) => text).join("")).toBe(" bcdefgh");
    expect(long).toMatchObject({ prompt: "a", first: 6 });
    expect(long?.tokens.map(({ probability }) => Math.round(probability))).toEqual([0, 0, 0, 0, 0, 0, 1, 1]);
    expect(long?.last).toBeCloseTo(1, 6);
    // One that is quiet, and one that was flagged falsely.
    expect(examples.filter((map) => !map.harmful).map(({ first }) => first)).toEqual([null, 6]);
  });

  it("finds no cost where the model is its reference, and counts its tokens", async () => {
    const { utility } = await evaluate({ model, adapters: adapters(8, 9), harmful, benign }, OPTIONS);
    const exactly = (value: number) => ({ value, low: value, high: value });
    expect(utility?.tokens).toBe(2 * (3 + 8));
    expect(utility?.perplexity_ratio).toEqual(exactly(1));
    expect(utility?.agreement).toEqual(exactly(1));
    expect(utility?.kl_per_token.value).toBeCloseTo(0, 6);
    // The script says z, the data b, c, …: e^20 to 1 against each.
    expect(Math.log(utility?.perplexity ?? 0)).toBeGreaterThan(15);
  });

  it("averages over adapters, each by its own level", async () => {
    const found = await evaluate({ model, adapters: adapters(8, 99), harmful, benign }, OPTIONS);
    const [flag] = found.detectors;
    expect(flag?.auroc_by_seed).toHaveLength(2);
    expect(flag?.flag_rate?.value).toBeCloseTo((2 / 3 + 0) / 2, 12);
    expect(flag?.delays).toEqual([3, -2]);
    expect(flag?.rule).toBe("threshold=0.5");
    // P(flag) where neither flags is e^-40 under both, but its rounding is not; ranks may be anything.
    expect(found.along[8]?.harmful).toMatchObject({ count: 4 });
    expect(found.along[8]?.harmful?.mean).toBeCloseTo(0.5, 6);
  });

  it("refuses a decision that needs a draw, before anything is answered", async () => {
    const asked = file("asked", [{ prompt: "a" }]);
    let answers = 0;
    const input = { model, adapters: adapters(8), harmful: asked, benign, onProgress: () => answers++ };
    await expect(evaluate({ ...input, decision: { kind: "sampled" } }, OPTIONS)).rejects.toThrow(
      "decision: 'sampled' needs a draw",
    );
    expect(answers).toBe(0);
  });

  it("says that P(flag) is NaN instead of ranking it", async () => {
    const broken = [async () => scriptedFlag(model, Array(CONTEXT).fill(Number.NaN))];
    await expect(evaluate({ model, adapters: broken, harmful, benign }, OPTIONS)).rejects.toThrow(
      "eval: P(flag) is NaN: the training has diverged",
    );
  });

  it("obeys another decision, whose value it ranks by", async () => {
    const decision = { kind: "ema", decay: 0.5, level: 0.8 } as const;
    const { detectors } = await evaluate(
      { model, adapters: adapters(8), harmful, benign, decision },
      OPTIONS,
    );
    // 1/2, 3/4, 7/8 of one: at the third position with the flag.
    expect(detectors[0]?.delays).toEqual([8 - 3, 8 - 8]);
    expect(detectors[0]?.rule).toBe("ema=0.5,0.8");
  });
});

describe("responses that the model writes", () => {
  const asked = file("asked", [{ prompt: "a" }, { prompt: "abcdefghijklm" }]);

  it("are each adapter's own, end with the context, and have no onset", async () => {
    const seen: string[][] = [];
    const spy: Detector = {
      name: "spy",
      rule: "none",
      async read(conversations) {
        seen.push(conversations.map(({ response }) => response));
        return conversations.map(() => ({ score: 0, flagged: false, first: null }));
      },
    };
    const input = { model, adapters: adapters(8, 99), harmful: asked, benign, baselines: async () => [spy] };
    const found = await evaluate(input, OPTIONS);
    expect(found.data.harmful).toEqual({ path: "asked", examples: 2, generated: 2, left_out: 0 });
    // 2 of 14 places are the prompt's. The first adapter has put a flag into the context: it is no text, and takes no
    // place of the answer.
    const given = ["bc", "bcdefgh"];
    expect(seen).toEqual([
      ["z".repeat(12), "", ...given],
      ["z".repeat(12), "", ...given],
    ]);
    expect(found.detectors[0]?.delays).toEqual([]);
    expect(found.detectors[1]?.auroc_by_seed).toEqual([0.5, 0.5]);
    expect(found.utility?.tokens).toBe(2 * 11);
  });

  it("tell the cost only where no example brings one", async () => {
    const { utility } = await evaluate({ model, adapters: adapters(99), harmful, benign: asked }, OPTIONS);
    expect(utility?.tokens).toBe(12);
    // Its own likeliest tokens.
    expect(utility?.perplexity).toBeCloseTo(1, 5);
    const both = file("both", [...benign.examples, ...asked.examples]);
    const mixed = await evaluate({ model, adapters: adapters(99), harmful, benign: both }, OPTIONS);
    expect(mixed.utility?.tokens).toBe(3 + 8);
    const none = await evaluate(
      { model, adapters: adapters(99), harmful, benign: file("full", [{ prompt: "abcdefghijklm" }]) },
      OPTIONS,
    );
    expect(none.utility).toBeNull();
  });

  it("can be asked for where there are others", async () => {
    let steps = 0;
    const found = await evaluate(
      {
        model,
        adapters: adapters(99),
        harmful,
        benign,
        onProgress: (done, total) => (steps = done === total ? done : 0),
      },
      { ...OPTIONS, generate: true },
    );
    expect(found.data.benign).toMatchObject({ generated: 2, left_out: 0 });
    expect(found.along).toHaveLength(13);
    // Five conversations, answered and read.
    expect(steps).toBe(10);
  });
});

describe("beside the flag stand", () => {
  it("Fixed-Pos adapters, read before the first token", async () => {
    const prompts = { harmful: file("h", [{ prompt: "abcdef", response: "g" }]), benign };
    const input = { model, adapters: adapters(99, 99, 99), ...prompts, fixedPos: adapters(7, 99) };
    const { detectors } = await evaluate(input, OPTIONS);
    expect(detectors.map(({ name }) => name)).toEqual(["red flag", "Fixed-Pos"]);
    const [, fixed] = detectors;
    expect(fixed?.rule).toBe("threshold=0.5 before the first token");
    expect(fixed?.auroc_by_seed).toEqual([1, 0.5]);
    expect(fixed?.flag_rate?.value).toBe(0.5);
    // The benign ones reach seven tokens later, which is not looked at.
    expect(fixed?.false_positive_rate?.value).toBe(0);
  });

  it("guards, and the flag with each", async () => {
    const guard: Detector = {
      name: "guard",
      rule: "short",
      async read(conversations) {
        return conversations.map(({ response }) => {
          const flagged = response === "bc";
          return { score: flagged ? 1 : 0, flagged, first: null };
        });
      },
    };
    const { detectors } = await evaluate(
      { model, adapters: adapters(8), harmful, benign, guards: [guard] },
      OPTIONS,
    );
    expect(detectors.map(({ name }) => name)).toEqual(["red flag", "guard", "red flag or guard"]);
    expect(detectors.map(({ flag_rate }) => flag_rate?.value)).toEqual(
      [2 / 3, 1 / 3, 1].map((x) => expect.closeTo(x, 12)),
    );
    expect(detectors.map(({ false_positive_rate: rate }) => rate?.value)).toEqual([0.5, 0.5, 1]);
  });
});
