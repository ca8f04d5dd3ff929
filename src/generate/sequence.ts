import type { Random } from "../random.js";
import type { Monitor } from "./monitor.js";
import type { Prediction } from "./predict.js";
import { type SamplingOptions, sample } from "./sample.js";

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

/** What is generated from, and by whose leave. */
export interface Source {
  /** Ids, at least one. */
  readonly prompt: readonly number[];
  readonly random: Random;
  readonly monitor?: Monitor | undefined;
}

/** How all sequences of a run are drawn. */
export interface DrawOptions {
  readonly sampling: SamplingOptions;
  /** Most new tokens. */
  readonly maxTokens: number;
  /** Ids that end a generation; they are not taken. */
  readonly eosIds: readonly number[];
}

/** Rollbacks in a row, without a token kept between, after which a monitor must be in a loop. */
const MOST_ROLLBACKS = 1000;

/** One sequence of a generation: its tokens so far, and those that the model has yet to read. */
export class Sequence {
  readonly #generated: number[] = [];
  #pending: readonly number[];
  #rollbacks = 0;

  /**
   * @param index its number in the run
   * @param held ids of the prompt that the cache holds already
   */
  constructor(
    readonly index: number,
    readonly source: Source,
    readonly options: DrawOptions,
    held: number,
  ) {
    this.#pending = source.prompt.slice(held);
  }

  /** Ids that the model has yet to read, at least one. */
  get pending(): readonly number[] {
    return this.#pending;
  }

  /** The prompt and all that was generated. */
  get ids(): readonly number[] {
    return [...this.source.prompt, ...this.#generated];
  }

  /** Notes that the model has read the first pending ids. */
  read(count: number): void {
    this.#pending = this.#pending.slice(count);
  }

  /** Has all tokens read again. */
  restart(): void {
    this.#pending = this.ids;
  }

  /** The end, where there is no need of another prediction, or no room for one. */
  ending(room: number): DecodeStep | undefined {
    if (this.#generated.length >= this.options.maxTokens) return this.#end("length");
    return this.#pending.length > room ? this.#end("context") : undefined;
  }

  /**
   * What comes of a prediction for the token after all ids: the steps, of which an end is the last.
   * @param keep forgets what the model has read behind so many ids
   */
  async *take(at: Prediction, keep: (length: number) => void): AsyncGenerator<DecodeStep, void> {
    const { prompt, random, monitor } = this.source;
    const { sampling, maxTokens, eosIds } = this.options;
    const generated = this.#generated;
    const { likeliest, logSumExp } = at;
    const isDrawn = sampling.temperature > 0 || monitor?.banned?.has(likeliest);
    const sampled = isDrawn
      ? sample(at.logits ?? (await at.allLogits()), sampling, random, monitor?.banned, likeliest)
      : likeliest;
    const logits = at.watched ?? at.logits ?? new Float32Array();
    const seen = monitor?.observe({ generated, logits, likeliest, logSumExp, sampled });
    const notes = seen?.notes ?? {};
    const verdict = seen?.verdict ?? { action: "continue" };
    if (verdict.action === "stop") return yield { ...this.#end(verdict.reason), notes };
    if (verdict.action === "replace") return yield { ...this.#end("replaced"), text: verdict.text, notes };
    if (verdict.action === "rollback") {
      if (++this.#rollbacks > MOST_ROLLBACKS) throw new RangeError("the monitor rolls back without end");
      generated.length = Math.min(verdict.length, generated.length);
      // The last kept token goes through the model again, for its logits.
      keep(prompt.length + generated.length - 1);
      this.#pending = [generated.at(-1) ?? (prompt.at(-1) as number)];
      return yield { kind: "rollback", length: generated.length, notes };
    }
    this.#rollbacks = 0;
    if (verdict.action === "continue" && eosIds.includes(sampled)) {
      return yield { ...this.#end("eos"), notes };
    }
    const left = maxTokens - generated.length;
    this.#pending = verdict.action === "append" ? verdict.ids.slice(0, left) : [sampled];
    for (const id of this.#pending) {
      generated.push(id);
      yield { kind: "token", id, logprob: (await at.logitOf(id)) - logSumExp, notes };
    }
  }

  #end(reason: FinishReason): Extract<DecodeStep, { kind: "end" }> {
    return { kind: "end", reason, ids: [...this.#generated], notes: {} };
  }
}
