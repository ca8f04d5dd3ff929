import { forward, head } from "../model/forward.js";
import { type HeadInput, inChunks } from "../model/head-loss.js";
import type { Overlay } from "../model/lora.js";
import type { Model } from "../model/model.js";
import { argmax } from "../ops/argmax.js";
import { crossEntropy } from "../ops/cross-entropy.js";
import { embedding } from "../ops/embedding.js";
import { kl } from "../ops/kl.js";
import { Tape } from "../tape.js";
import { Arena } from "../tensor.js";
import type { FlagSequence } from "./data.js";
import { type Decision, DecisionTracker } from "./decision.js";
import type { FlaggedModel } from "./vocab.js";

/** What the flag says of one response. */
export interface FlagScore {
  /** P(flag) before each response token and after the last: n + 1 numbers. With several flags, their sum. */
  readonly probabilities: Float64Array;
  /** The category whose flag is the likeliest where P(flag) is largest; null where one flag stands for all. */
  readonly category: string | null;
  /** The largest of them. */
  readonly max: number;
  /** 1 - Π(1 - P). */
  readonly cumulative: number;
  /** The largest of what the decision compares with its level; see `DecisionTracker`. */
  readonly highest: number;
  /** The first position where the decision is met, or null. */
  readonly first: number | null;
}

/** Sums probabilities of positions up. `likeliest` says where the flag is the likeliest token. */
function summarise(
  probabilities: Float64Array,
  decision: Decision,
  likeliest: (position: number) => boolean,
): Omit<FlagScore, "category"> {
  const tracker = new DecisionTracker(decision);
  let first: number | null = null;
  probabilities.forEach((probability, position) => {
    const raised = tracker.update({ probability, likeliest: likeliest(position), sampled: false });
    if (raised && first === null) first = position;
  });
  const { cumulative, highest } = tracker;
  return { probabilities, max: Math.max(...probabilities), cumulative, highest, first };
}

/** The residual stream at the rows that stand before each response token, and with `last` at the one after them. */
export function responseRows(
  tape: Tape,
  model: Model,
  { prompt, response }: Pick<FlagSequence, "prompt" | "response">,
  overlay: Overlay | undefined,
  last: boolean,
): HeadInput {
  if (prompt.length === 0) throw new RangeError("prompt: there must be at least one token");
  const ids = [...prompt, ...(last ? response : response.slice(0, -1))];
  const hidden = forward(tape, model, ids, { overlay });
  const rows = Uint32Array.from(
    { length: response.length + (last ? 1 : 0) },
    (_, i) => prompt.length - 1 + i,
  );
  return { hidden: embedding(tape, hidden, tape.from(rows)), overlay };
}

/** Reads the flag along given responses, and what training has cost elsewhere. Reuses its memory. */
export class FlagScorer {
  readonly #arena: Arena;

  constructor(readonly flagged: FlaggedModel) {
    this.#arena = new Arena(flagged.model.backend);
  }

  /** Teacher-forced: P(flag) at every position of the response. */
  async score(
    sequence: Pick<FlagSequence, "prompt" | "response">,
    decision: Decision = this.flagged.decision,
  ): Promise<FlagScore> {
    const tape = this.#tape();
    const { model, overlay, flagIds } = this.flagged;
    const input = responseRows(tape, model, sequence, overlay, true);
    const positions = sequence.response.length + 1;
    // -ln P(flag) is the cross-entropy with the flag as every row's target.
    const flags = flagIds.map((flagId) => ({
      targets: tape.from(new Uint32Array(positions).fill(flagId)),
      losses: tape.empty([positions]),
    }));
    const firsts = decision.kind === "argmax" ? tape.empty([positions], "u32") : undefined;
    inChunks(tape, model, input, (chunk, part) => {
      const logits = head(chunk, model, part(input.hidden), overlay);
      for (const { targets, losses } of flags) {
        crossEntropy(chunk, logits, part(targets), { into: part(losses) });
      }
      if (firsts) argmax(chunk, logits, part(firsts));
    });
    const likeliestIds = await firsts?.readIds();
    const likeliest = (position: number) => this.flagged.isFlag(likeliestIds?.[position] ?? -1);
    const losses = await Promise.all(flags.map((flag) => flag.losses.read()));
    const of = (position: number) => losses.map((loss) => Math.exp(-(loss[position] as number)));
    const probabilities = Float64Array.from({ length: positions }, (_, position) =>
      Math.min(
        1,
        of(position).reduce((sum, p) => sum + p, 0),
      ),
    );
    const score = summarise(probabilities, decision, likeliest);
    const split = of(probabilities.indexOf(score.max));
    const flagId = flagIds[split.indexOf(Math.max(...split))] as number;
    return { ...score, category: this.flagged.categoryOf(flagId) };
  }

  /**
   * On a benign response: KL(π_θ ‖ π_ref), the cross-entropies of both, and where both find the same token likeliest.
   */
  async utility(sequence: Pick<FlagSequence, "prompt" | "response">): Promise<Utility> {
    const tape = this.#tape();
    const { model, overlay, reference } = this.flagged;
    const input = responseRows(tape, model, sequence, overlay, false);
    const refInput = responseRows(tape, model, sequence, reference, false);
    const count = sequence.response.length;
    const targets = tape.from(Uint32Array.from(sequence.response));
    const [divergences, losses, refLosses] = [tape.empty([count]), tape.empty([count]), tape.empty([count])];
    const [likeliest, refLikeliest] = [tape.empty([count], "u32"), tape.empty([count], "u32")];
    inChunks(tape, model, input, (chunk, part) => {
      const logits = head(chunk, model, part(input.hidden), overlay);
      const refLogits = head(chunk, model, part(refInput.hidden), reference);
      kl(chunk, logits, refLogits, { into: part(divergences) });
      crossEntropy(chunk, logits, part(targets), { into: part(losses) });
      crossEntropy(chunk, refLogits, part(targets), { into: part(refLosses) });
      argmax(chunk, logits, part(likeliest));
      argmax(chunk, refLogits, part(refLikeliest));
    });
    const [divergence, loss, refLoss] = await Promise.all([
      divergences.read(),
      losses.read(),
      refLosses.read(),
    ]);
    const [ids, refIds] = [await likeliest.readIds(), await refLikeliest.readIds()];
    return {
      tokens: count,
      kl: total(divergence),
      loss: total(loss),
      refLoss: total(refLoss),
      agreements: ids.filter((id, i) => id === refIds[i]).length,
    };
  }

  #tape(): Tape {
    this.#arena.reset();
    return new Tape(this.#arena, false);
  }

  dispose(): void {
    this.#arena.dispose();
  }
}

/** Sums over the tokens of a response. */
export interface Utility {
  readonly tokens: number;
  /** KL(π_θ ‖ π_ref), in nats. */
  readonly kl: number;
  /** Cross-entropy of the model and of its reference, in nats. */
  readonly loss: number;
  readonly refLoss: number;
  /** Tokens where both find the same one likeliest. */
  readonly agreements: number;
}

function total(values: Float32Array): number {
  return values.reduce((sum, value) => sum + value, 0);
}
