import type { Random } from "../random.js";

/** How a deck deals. */
export interface DeckOptions<T> {
  /** Items a hand. */
  readonly size: number;
  /** Hands that are cut together from items sorted by length; 1 leaves items as they are drawn. */
  readonly bucket: number;
  /** What items are sorted by. */
  readonly lengthOf: (item: T) => number;
}

/** Where a deck stands, as places in its items. Plain JSON. */
export interface DeckState {
  /** What is left of the epoch behind the bucket at hand, the next one last. */
  readonly left: readonly number[];
  /** Hands of the bucket that are still to be dealt, by length. */
  readonly hands: readonly (readonly number[])[];
}

/**
 * Deals items in random order, again and again, each once before any comes again, in hands of similar length: of
 * the shuffled items of an epoch, as many as fill a bucket of hands are sorted and cut into these, which are then
 * dealt in random order. Hands never reach over a bucket, nor buckets over an epoch; only the hand that an epoch's
 * last items don't fill takes the first ones of the next.
 */
export class Deck<T> {
  #left: number[] = [];
  #hands: number[][] = [];

  constructor(
    readonly items: readonly T[],
    readonly options: DeckOptions<T>,
    readonly random: Random,
  ) {}

  /**
   * The next hand; an empty one where there are no items.
   * @param near the length that its longest item should come close to; any will do where nothing is said
   */
  deal(near?: number): T[] {
    const { size } = this.options;
    if (size === 0 || this.items.length === 0) return [];
    if (this.#hands.length === 0) this.#hands = this.#nextBucket();
    const at = this.#choose(near);
    const [hand = []] = this.#hands.splice(at, 1);
    return hand.map((place) => this.items[place] as T);
  }

  /** The place of the hand to deal. */
  #choose(near: number | undefined): number {
    if (this.#hands.length === 1) return 0;
    if (near === undefined) return this.random.below(this.#hands.length);
    const distances = this.#hands.map((hand) => Math.abs(this.#length(hand.at(-1) as number) - near));
    return distances.indexOf(Math.min(...distances));
  }

  #length(place: number): number {
    return this.options.lengthOf(this.items[place] as T);
  }

  #nextBucket(): number[][] {
    const { size, bucket } = this.options;
    if (this.#left.length === 0) this.#left = this.#shuffled();
    const count = Math.min(bucket, Math.floor(this.#left.length / size));
    if (count === 0) return [this.#overEpochs(size)];
    const places = this.#left.splice(-count * size).sort((a, b) => this.#length(a) - this.#length(b));
    return Array.from({ length: count }, (_, i) => places.slice(i * size, (i + 1) * size));
  }

  /** A hand of the epoch's last items and the first ones of the next. */
  #overEpochs(size: number): number[] {
    const hand: number[] = [];
    while (hand.length < size) {
      if (this.#left.length === 0) this.#left = this.#shuffled();
      hand.push(this.#left.pop() as number);
    }
    return hand.sort((a, b) => this.#length(a) - this.#length(b));
  }

  #shuffled(): number[] {
    return this.random.shuffle([...this.items.keys()]);
  }

  get state(): DeckState {
    return { left: [...this.#left], hands: this.#hands.map((hand) => [...hand]) };
  }

  set state({ left, hands }: DeckState) {
    this.#left = [...left];
    this.#hands = hands.map((hand) => [...hand]);
  }
}
