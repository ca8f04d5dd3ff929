import { yieldToEventLoop } from "../event-loop.js";
import { vocabularySize } from "../model/forward.js";
import { KVCache, type KVType } from "../model/kv-cache.js";
import type { Overlay } from "../model/lora.js";
import type { Model } from "../model/model.js";
import { rotaryReach, usesLongFactors } from "../model/rope-frequencies.js";
import { Arena } from "../tensor.js";
import { type Piece, predict } from "./predict.js";
import type { PrefixCache } from "./prefix-cache.js";
import { checkSampling } from "./sample.js";
import { type DecodeStep, type DrawOptions, Sequence, type Source } from "./sequence.js";

/** How sequences are generated side by side. */
export interface DecodeBatchOptions extends DrawOptions {
  readonly overlay?: Overlay | undefined;
  /** What keys and values are kept as; f32 by default. */
  readonly kvType?: KVType | undefined;
  /** Aborts between two passes, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** How a generation runs. */
export interface DecodeOptions extends DecodeBatchOptions, Omit<Source, "prompt"> {
  /** Keys and values of what was read before, and where those of this one stay; of its own type. */
  readonly cache?: PrefixCache | undefined;
}

/** What happened at a position of one of several sequences. */
export type BatchStep = DecodeStep & {
  /** The sequence's number. */
  readonly index: number;
};

/**
 * Ids that go through the model at once. A longer prompt goes in pieces, so that what lies between the layers stays
 * small, and a signal aborts between them.
 */
const PASS_IDS = 2048;

/**
 * Generates token by token over a KV cache. Every position's raw logits go to the monitor before a token is
 * taken, so no sampling option can hide anything from it.
 * @param prompt ids, at least one
 * @throws RangeError where the prompt is empty or longer than the context, or an option is out of its range
 */
export async function* decode(
  model: Model,
  prompt: readonly number[],
  options: DecodeOptions,
): AsyncGenerator<DecodeStep, void> {
  const { random, monitor, cache, ...rest } = options;
  if (cache && rest.kvType && rest.kvType !== cache.type) {
    throw new RangeError(`kvType: ${rest.kvType}, but the cache is of ${cache.type}`);
  }
  for await (const { index: _, ...step } of run(model, [{ prompt, random, monitor }], rest, cache))
    yield step;
}

/**
 * The same for several prompts of any length at once: a pass takes a token of each, so that every weight is read once
 * for all. Each sequence has its own random numbers and monitor, ends by itself, and has the logits that it would
 * have alone, but for rounding. Where they may become so long that the model rotates each by its length (LongRoPE,
 * dynamic scaling), they run one after the other.
 */
export async function* decodeBatch(
  model: Model,
  sources: readonly Source[],
  options: DecodeBatchOptions,
): AsyncGenerator<BatchStep, void> {
  const longest = Math.max(0, ...sources.map(({ prompt }) => prompt.length)) + options.maxTokens;
  if (Math.min(longest, model.config.contextLength) <= rotaryReach(model.config, 1)) {
    yield* run(model, sources, options, undefined);
    return;
  }
  for (const [index, source] of sources.entries()) {
    for await (const step of run(model, [source], options, undefined)) yield { ...step, index };
  }
}

async function* run(
  model: Model,
  sources: readonly Source[],
  options: DecodeBatchOptions,
  lender: PrefixCache | undefined,
): AsyncGenerator<BatchStep, void> {
  const { contextLength } = model.config;
  const { overlay, sampling, maxTokens, signal } = options;
  checkSampling(sampling);
  if (!(maxTokens >= 0)) throw new RangeError(`maxTokens must be a number from 0, got ${maxTokens}`);
  for (const { prompt } of sources) checkPrompt(prompt, contextLength);
  if (sources.length === 0) return;
  const longest = Math.max(...sources.map(({ prompt }) => prompt.length));
  const capacity = Math.min(contextLength, longest + maxTokens);
  const cache =
    lender?.take(model, overlay, sources[0]?.prompt ?? []) ??
    new KVCache(model.backend, model.config, capacity, sources.length, { type: options.kvType });
  const arena = new Arena(model.backend, 1 << 20);
  const sequences = sources.map((source, i) => new Sequence(i, source, options, cache.lengths[i] ?? 0));
  // Where nobody looks at all of them the logits stay where they are, and a token costs a few numbers on the way.
  const isRead = sampling.temperature > 0 || sources.some(({ monitor }) => monitor && !monitor.watches);
  const logits = isRead
    ? new Float32Array(sources.length * vocabularySize(model.config, overlay))
    : undefined;
  // In the order of the cache's sequences.
  let live = sequences;
  let sequenceLength = longest;
  try {
    for (;;) {
      await yieldToEventLoop();
      signal?.throwIfAborted();
      const ended = new Set<Sequence>();
      for (const [i, sequence] of live.entries()) {
        const end = sequence.ending(contextLength - (cache.lengths[i] ?? 0));
        if (!end) continue;
        ended.add(sequence);
        yield { index: sequence.index, ...end };
      }
      live = without(live, ended, cache);
      if (live.length === 0) return;

      const before = sequenceLength;
      sequenceLength = Math.max(...live.map(({ pending }, i) => (cache.lengths[i] ?? 0) + pending.length));
      if (usesLongFactors(model.config, sequenceLength) !== usesLongFactors(model.config, before)) {
        // All tokens so far go through the model again: their keys were turned by the other factors.
        cache.truncate(0);
        for (const sequence of live) sequence.restart();
      }
      const pieces = nextPieces(live, cache);
      const predictions = await predict(arena, model, cache, pieces, { overlay, sequenceLength, logits });
      ended.clear();
      for (const [i, sequence] of live.entries()) {
        sequence.read(pieces[i]?.ids.length ?? 0);
        const prediction = predictions[i];
        if (!prediction) continue;
        for await (const step of sequence.take(prediction, (length) => cache.truncate(length, i))) {
          if (step.kind === "end") ended.add(sequence);
          yield { index: sequence.index, ...step };
        }
      }
      live = without(live, ended, cache);
      if (live.length === 0) return;
    }
  } finally {
    if (lender) lender.giveBack(sequences[0]?.ids ?? [], sequenceLength);
    else cache.dispose();
    arena.dispose();
  }
}

function checkPrompt(prompt: readonly number[], contextLength: number): void {
  if (prompt.length === 0) throw new RangeError("prompt: there must be at least one token");
  if (prompt.length > contextLength) {
    throw new RangeError(
      `prompt: ${prompt.length} tokens are longer than the model's context of ${contextLength}`,
    );
  }
}

/** The sequences that go on. What the others held makes room for them; that of the last stays, for a prefix cache. */
function without(live: Sequence[], ended: ReadonlySet<Sequence>, cache: KVCache): Sequence[] {
  if (ended.size === 0) return live;
  const kept = [...live.keys()].filter((i) => !ended.has(live[i] as Sequence));
  if (kept.length > 0) cache.keep(kept);
  return kept.map((i) => live[i] as Sequence);
}

/** What goes through the model next: of each sequence as much as the longest has, if all have room for that. */
function nextPieces(live: readonly Sequence[], cache: KVCache): Piece[] {
  const most = Math.max(...live.map(({ pending }) => pending.length));
  // The padding of a sequence, too, takes positions.
  const room = cache.capacity - cache.length;
  const width = Math.min(most, room, Math.max(1, Math.floor(PASS_IDS / live.length)));
  return live.map(({ pending, source }) => ({
    ids: pending.slice(0, width),
    isLast: pending.length <= width,
    watches: source.monitor?.watches ?? (source.monitor ? undefined : []),
  }));
}
