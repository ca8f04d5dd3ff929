import { yieldToEventLoop } from "../event-loop.js";
import { forward, head, vocabularySize } from "../model/forward.js";
import { KVCache } from "../model/kv-cache.js";
import type { Overlay } from "../model/lora.js";
import type { Model } from "../model/model.js";
import { usesLongFactors } from "../model/rope-frequencies.js";
import { argmax } from "../ops/argmax.js";
import { crossEntropy } from "../ops/cross-entropy.js";
import { embedding } from "../ops/embedding.js";
import type { Random } from "../random.js";
import { Tape } from "../tape.js";
import { Arena, type Tensor } from "../tensor.js";
import type { Monitor } from "./monitor.js";
import { checkSampling, type SamplingOptions, sample } from "./sample.js";

/** How a generation runs. */
export interface DecodeOptions {
  readonly sampling: SamplingOptions;
  readonly random: Random;
  /** Most new tokens. */
  readonly maxTokens: number;
  /** Ids that end the generation; they are not taken. */
  readonly eosIds: readonly number[];
  readonly overlay?: Overlay | undefined;
  readonly monitor?: Monitor | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Why a generation ended: its length, the context's, an end-of-sequence token, or what a monitor said. */
export type FinishReason = "length" | "context" | "eos" | (string & {});

/** What happened at one position. */
export type DecodeStep =
  /** A token was taken. `logprob`: its log-probability under the raw logits, in nats. */
  | { readonly kind: "token"; readonly id: number; readonly logprob: number; readonly notes: Notes }
  /** The monitor took tokens back: `length` new ones are left. */
  | { readonly kind: "rollback"; readonly length: number; readonly notes: Notes }
  /** The end. `text` is what a monitor put in place of the response. */
  | {
      readonly kind: "end";
      readonly reason: FinishReason;
      readonly ids: readonly number[];
      readonly text?: string;
      readonly notes: Notes;
    };

type Notes = Readonly<Record<string, unknown>>;

/** Rollbacks in a row, without a token kept between, after which a monitor must be in a loop. */
const MOST_ROLLBACKS = 1000;

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
  const { contextLength } = model.config;
  checkSampling(options.sampling);
  if (!(options.maxTokens >= 0))
    throw new RangeError(`maxTokens must be a number from 0, got ${options.maxTokens}`);
  if (prompt.length === 0) throw new RangeError("prompt: there must be at least one token");
  if (prompt.length > contextLength) {
    throw new RangeError(
      `prompt: ${prompt.length} tokens are longer than the model's context of ${contextLength}`,
    );
  }
  const capacity = Math.min(contextLength, prompt.length + options.maxTokens);
  const cache = new KVCache(model.backend, model.config, capacity);
  const arena = new Arena(model.backend, 1 << 20);
  const { monitor, sampling } = options;
  const watches = monitor ? monitor.watches : [];
  // Where nobody looks at all of them the logits stay where they are, and a token costs a few numbers on the way.
  const logits =
    sampling.temperature > 0 || !watches
      ? new Float32Array(vocabularySize(model.config, options.overlay))
      : undefined;
  const generated: number[] = [];
  let pending: readonly number[] = prompt;
  let rollbacks = 0;
  let isLong = usesLongFactors(model.config, prompt.length);
  try {
    for (;;) {
      await yieldToEventLoop();
      options.signal?.throwIfAborted();
      if (generated.length >= options.maxTokens) return yield end("length");
      const room = contextLength - cache.length;
      if (pending.length > room) return yield end("context");

      const length = cache.length + pending.length;
      if (usesLongFactors(model.config, length) !== isLong) {
        // All tokens so far go through the model again: their keys were turned by the other factors.
        isLong = !isLong;
        cache.truncate(0);
        pending = [...prompt, ...generated];
      }
      const at = await predict(arena, model, cache, pending, options.overlay, { logits, watches });
      const { likeliest, logSumExp, watched } = at;
      const sampled =
        logits || monitor?.banned?.has(likeliest)
          ? sample(logits ?? (await at.scores.read()), sampling, options.random, monitor?.banned, likeliest)
          : likeliest;
      const seen = monitor?.observe({ generated, logits: watched, likeliest, logSumExp, sampled });
      const notes = seen?.notes ?? {};
      const verdict = seen?.verdict ?? { action: "continue" };
      if (verdict.action === "stop") return yield { ...end(verdict.reason), notes };
      if (verdict.action === "replace") return yield { ...end("replaced"), text: verdict.text, notes };
      if (verdict.action === "rollback") {
        if (++rollbacks > MOST_ROLLBACKS) throw new RangeError("the monitor rolls back without end");
        generated.length = Math.min(verdict.length, generated.length);
        // The last kept token goes through the model again, for its logits.
        const kept = prompt.length + generated.length;
        cache.truncate(kept - 1);
        pending = [generated.at(-1) ?? (prompt.at(-1) as number)];
        yield { kind: "rollback", length: generated.length, notes };
        continue;
      }
      rollbacks = 0;
      const left = options.maxTokens - generated.length;
      const taken = verdict.action === "append" ? verdict.ids.slice(0, left) : [sampled];
      if (verdict.action === "continue" && options.eosIds.includes(sampled))
        return yield { ...end("eos"), notes };
      for (const id of taken) {
        generated.push(id);
        yield {
          kind: "token",
          id,
          logprob: (await at.logitOf(id)) - logSumExp,
          notes,
        };
      }
      pending = taken;
    }
  } finally {
    cache.dispose();
    arena.dispose();
  }

  function end(reason: FinishReason): Extract<DecodeStep, { kind: "end" }> {
    return { kind: "end", reason, ids: [...generated], notes: {} };
  }
}

/** What of the logits is to leave the device. */
interface Wanted {
  /** Filled with all of them, where there is one. */
  readonly logits: Float32Array<ArrayBuffer> | undefined;
  /** Ids whose logits alone a monitor wants. */
  readonly watches: readonly number[] | undefined;
}

/** What the model says of the token after some ids. */
interface Prediction {
  readonly likeliest: number;
  readonly logSumExp: number;
  /** What the monitor wants: logits of the watched ids, or all. */
  readonly watched: Float32Array;
  /** All logits (1, vocabulary), on the device until the next prediction. */
  readonly scores: Tensor;
  logitOf(id: number): number | Promise<number>;
}

/** Puts ids through the model. */
async function predict(
  arena: Arena,
  model: Model,
  cache: KVCache,
  ids: readonly number[],
  overlay: Overlay | undefined,
  { logits, watches }: Wanted,
): Promise<Prediction> {
  arena.reset();
  const tape = new Tape(arena, false);
  const rows = forward(tape, model, ids, { cache, overlay });
  const last = ids.length === 1 ? rows : embedding(tape, rows, tape.from(Uint32Array.of(ids.length - 1)));
  const scores = head(tape, model, last, overlay);
  const first = argmax(tape, scores);
  const loss = crossEntropy(tape, scores, first);
  const top = embedding(tape, scores.reshape([scores.size, 1]), first);
  const [[likeliest = 0], [nats = 0], [highest = 0], watched, all] = await Promise.all([
    first.readIds(),
    loss.read(),
    top.read(),
    watches && some(scores, watches),
    logits && scores.read(logits),
  ]);
  return {
    likeliest,
    logSumExp: highest + nats,
    watched: watched ?? all ?? new Float32Array(),
    scores,
    logitOf(id) {
      if (id === likeliest) return highest;
      if (all) return all[id] ?? Number.NaN;
      return scores.at(id);
    },
  };
}

/** A few numbers of a tensor. */
async function some(tensor: Tensor, indices: readonly number[]): Promise<Float32Array> {
  const values = new Float32Array(indices.length);
  await Promise.all(
    indices.map(async (index, i) => {
      values[i] = await tensor.at(index);
    }),
  );
  return values;
}
