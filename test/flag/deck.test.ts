import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FlagSequence, flagBatches } from "../../src/flag/data.js";
import { Deck } from "../../src/flag/deck.js";
import { layout } from "../../src/flag/loss.js";
import { Random } from "../../src/random.js";

interface Item {
  readonly id: number;
  readonly length: number;
}

/** Items, and a deck of them. */
const decks = fc.record({
  lengths: fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 60 }),
  size: fc.integer({ min: 1, max: 7 }),
  bucket: fc.integer({ min: 1, max: 20 }),
  seed: fc.nat(),
});

function deckOf({
  lengths,
  size,
  bucket,
  seed,
}: {
  lengths: number[];
  size: number;
  bucket: number;
  seed: number;
}) {
  const items = lengths.map((length, id) => ({ id, length }));
  return new Deck<Item>(items, { size, bucket, lengthOf: ({ length }) => length }, new Random(seed));
}

describe("a deck", () => {
  it("deals every item once before any comes again, whatever lengths are asked for", () => {
    fc.assert(
      fc.property(decks, fc.array(fc.option(fc.nat(50), { nil: undefined })), (options, nears) => {
        const deck = deckOf(options);
        const count = options.lengths.length;
        const seen: number[] = [];
        for (let turn = 0; seen.length < 3 * count; turn++) {
          const hand = deck.deal(nears[turn % Math.max(1, nears.length)]);
          expect(hand).toHaveLength(options.size);
          seen.push(...hand.map(({ id }) => id));
        }
        const ids = [...options.lengths.keys()];
        // A hand over two epochs is sorted by length: which of its items end the one is not told.
        if (count % options.size !== 0) return;
        for (let epoch = 0; epoch < 3; epoch++) {
          expect(seen.slice(epoch * count, (epoch + 1) * count).sort((a, b) => a - b)).toEqual(ids);
        }
      }),
    );
  });

  it("has dealt every item as often as any other, but for one time", () => {
    fc.assert(
      fc.property(decks, (options) => {
        const deck = deckOf(options);
        const times = new Array<number>(options.lengths.length).fill(0);
        for (let turn = 0; turn < 40; turn++) {
          for (const { id } of deck.deal()) times[id] = (times[id] ?? 0) + 1;
          expect(Math.max(...times) - Math.min(...times)).toBeLessThanOrEqual(1);
        }
      }),
    );
  });

  it("goes on from its state as it would have", () => {
    fc.assert(
      fc.property(decks, fc.nat(30), (options, turns) => {
        const deck = deckOf(options);
        for (let turn = 0; turn < turns; turn++) deck.deal();
        const again = deckOf(options);
        again.state = JSON.parse(JSON.stringify(deck.state));
        again.random.state = deck.random.state;
        for (let turn = 0; turn < 20; turn++) expect(again.deal(turn)).toEqual(deck.deal(turn));
      }),
    );
  });

  it("cuts a bucket into hands whose lengths do not overlap", () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray([...Array(40).keys()], { minLength: 40 }),
        fc.nat(),
        (lengths, seed) => {
          // One bucket is the whole epoch: ten hands of four.
          const deck = deckOf({ lengths, size: 4, bucket: 10, seed });
          const firsts: number[] = [];
          for (let turn = 0; turn < 10; turn++) {
            const hand = deck.deal().map(({ length }) => length);
            const [first = 0] = hand;
            expect(hand).toEqual([first, first + 1, first + 2, first + 3]);
            firsts.push(first);
          }
          expect(firsts.sort((a, b) => a - b)).toEqual([0, 4, 8, 12, 16, 20, 24, 28, 32, 36]);
        },
      ),
    );
  });

  it("deals the hand whose longest item is nearest to the length asked for", () => {
    const deck = deckOf({ lengths: [1, 2, 10, 11, 20, 21], size: 2, bucket: 3, seed: 0 });
    const lengths = (near: number) => deck.deal(near).map(({ length }) => length);
    expect([lengths(12), lengths(90), lengths(90)]).toEqual([
      [10, 11],
      [20, 21],
      [1, 2],
    ]);
  });

  it("of a bucket of one takes items as they come", () => {
    // Were they sorted, hands would be pairs of neighbours.
    const lengths = [...Array(100).keys()];
    const deck = deckOf({ lengths, size: 2, bucket: 1, seed: 3 });
    const gaps = Array.from({ length: 50 }, () => deck.deal()).map(
      ([a, b]) => (b?.length ?? 0) - (a?.length ?? 0),
    );
    // The mean distance of two of a hundred is 33; the deviation of the mean of 50 is 3.4.
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    expect(Math.abs(mean - 33.7)).toBeLessThan(14);
  });

  it("deals nothing where there is nothing, or nothing is wanted", () => {
    expect(deckOf({ lengths: [], size: 2, bucket: 2, seed: 0 }).deal()).toEqual([]);
    expect(deckOf({ lengths: [1], size: 0, bucket: 2, seed: 0 }).deal()).toEqual([]);
  });
});

it("batches from buckets carry less padding than batches as they are drawn", () => {
  const random = new Random(4);
  const sequences = (count: number): FlagSequence[] =>
    Array.from({ length: count }, () => {
      const length = 1 + Math.floor(-20 * Math.log(1 - random.uniform()));
      return { prompt: [1], response: new Array<number>(length).fill(2), onset: 0 };
    });
  const [harmful, benign] = [sequences(64), sequences(256)];
  const padding = (bucket: number) => {
    const batches = flagBatches(harmful, benign, { harmful: 4, benign: 4, bucket }, new Random(5));
    let [tokens, all] = [0, 0];
    for (let i = 0; i < 64; i++) {
      const at = layout(batches.next(), 9);
      tokens += at.tokens;
      all += at.ids.length;
    }
    return 1 - tokens / all;
  };
  // Exponential lengths: of eight, the longest is 2.7 times the mean.
  expect(padding(1)).toBeGreaterThan(0.5);
  expect(padding(16)).toBeLessThan(0.25);
});
