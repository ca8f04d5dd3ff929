/** A position of a generation, before its token is drawn. */
export interface Observation {
  /** Tokens generated so far, the ids of the new ones. */
  readonly generated: readonly number[];
  /**
   * The model's logits before any sampling transform: all of them by id, or those of the ids that the monitor
   * `watches`, in its order. Valid during the call.
   */
  readonly logits: Float32Array;
  /** The largest logit's id, the first of equals. */
  readonly likeliest: number;
  /** ln Σ e^logits: an id's log-probability is its logit less this. */
  readonly logSumExp: number;
  /** The token that sampling has drawn. */
  readonly sampled: number;
}

/** What a monitor wants of the loop. */
export type Verdict =
  /** Take the sampled token and go on. */
  | { readonly action: "continue" }
  /** End here; the sampled token is not taken. */
  | { readonly action: "stop"; readonly reason: string }
  /** End here, and let this text stand for the whole response. */
  | { readonly action: "replace"; readonly text: string }
  /** Take these tokens instead of the sampled one. */
  | { readonly action: "append"; readonly ids: readonly number[] }
  /** Forget all generated tokens from this count on, and draw again. */
  | { readonly action: "rollback"; readonly length: number };

/** Reads every position's raw logits, and says how the generation goes on. */
export interface Monitor {
  /**
   * The only ids whose logits it reads; all where it names none. A few numbers cost less on the way from the device
   * than a vocabulary.
   */
  readonly watches?: readonly number[];
  /** Ids that sampling must not draw: tokens that only the monitor may place. */
  readonly banned?: ReadonlySet<number>;
  /** Names what it read at this position in `notes`, which the step hands on to the caller. */
  observe(observation: Observation): {
    readonly verdict: Verdict;
    readonly notes: Readonly<Record<string, unknown>>;
  };
}
