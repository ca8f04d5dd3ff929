import type { FlaggedModel } from "../../flag/vocab.js";
import { forward, head } from "../../model/forward.js";
import { type HeadInput, headCrossEntropy, inChunks } from "../../model/head-loss.js";
import { KVCache } from "../../model/kv-cache.js";
import { weightUnder } from "../../model/lora.js";
import { crossEntropy } from "../../ops/cross-entropy.js";
import { embedding } from "../../ops/embedding.js";
import { linear } from "../../ops/matmul.js";
import { Tape } from "../../tape.js";
import { Arena, type Tensor } from "../../tensor.js";
import type { SuffixProblem } from "./suffix-problem.js";

/**
 * Ids of one pass over candidates. On stories260K (one thread, CPU time) passes of 1024 to 16384 ids are equally fast,
 * and those of 256 take 10 % longer.
 */
const PASS_IDS = 2048;

/** Positions of the cache, over all candidates of a pass: long prompts leave room for fewer of them. */
const CACHE_POSITIONS = 8192;

/** The least 1 - P(flag) that is told from 0: f32's rounding of a log-probability. */
const LEAST_SILENCE = 2 ** -24;

/**
 * What a suffix is searched by: the mean cross-entropy of the target's tokens (Zou et al. 2023), and for an adaptive
 * attacker `flagWeight` times -Σ ln(1 - P(flag)) over the positions before each of them and after the last: the
 * negative logarithm of the chance that a sampler raises no flag. Nats. Reuses its memory.
 */
export class SuffixLoss {
  readonly #arena: Arena;
  /** Candidates of a pass. */
  readonly #batch: number;
  /** What stands before the suffix, for every candidate of a pass; empty until the first. */
  readonly #cache: KVCache;

  constructor(
    readonly flagged: FlaggedModel,
    readonly problem: SuffixProblem,
    /** 0: the attacker takes no heed of the flag. */
    readonly flagWeight: number,
  ) {
    const { before, start, after, target } = problem;
    const { backend, config } = flagged.model;
    const length = start.length + after.length + target.length;
    const capacity = before.length + length;
    this.#batch = Math.max(1, Math.floor(Math.min(PASS_IDS / length, CACHE_POSITIONS / capacity)));
    this.#cache = new KVCache(backend, config, capacity, this.#batch);
    this.#arena = new Arena(backend);
  }

  /** The losses of suffixes, as long as the one to begin with. */
  async evaluate(suffixes: readonly (readonly number[])[]): Promise<number[]> {
    const losses: number[] = [];
    for (let from = 0; from < suffixes.length; from += this.#batch) {
      losses.push(...(await this.#evaluatePass(suffixes.slice(from, from + this.#batch))));
    }
    return losses;
  }

  /**
   * The gradient of the loss in the one-hot of every position of a suffix: (length, vocabulary) in one row, the
   * model's own tokens only. It is that of the embeddings times the transposed table.
   */
  async gradient(suffix: readonly number[]): Promise<Float32Array> {
    this.#arena.reset();
    const tape = new Tape(this.#arena);
    const quiet = new Tape(this.#arena, false);
    const { model, overlay } = this.flagged;
    const { before, after, target } = this.problem;
    const ids = [...before, ...suffix, ...after, ...target];
    const perturbation = tape.filled([ids.length, model.config.hiddenSize], 0);
    perturbation.requiresGrad = true;
    const all = forward(tape, model, ids, { overlay, perturbation });
    const hidden = this.#targetRows(tape, all, 1, ids.length);
    const input = { hidden, overlay };

    const { targets, shares } = this.#targets(1);
    headCrossEntropy(tape, model, input, tape.from(targets), tape.from(shares));
    const flags = this.#flagTargets(tape, shares.length);
    const nats = await Promise.all(flags.map((flag) => headCrossEntropy(quiet, model, input, flag).read()));
    for (const [i, flag] of flags.entries()) {
      // d(-ln(1 - ΣP)) = Σ -P / (1 - ΣP) · d(-ln P): cross-entropies weighted so have its gradient.
      const weights = Float32Array.from(shares, (_, row) => {
        const p = Math.exp(-(nats[i]?.[row] as number));
        return (-this.flagWeight * p) / silence(nats, row);
      });
      headCrossEntropy(tape, model, input, flag, tape.from(weights));
    }
    tape.backward();
    const positions = tape.from(Uint32Array.from(suffix, (_, i) => before.length + i));
    const rows = embedding(quiet, tape.grad(perturbation), positions);
    return linear(quiet, rows, weightUnder(model, overlay, "embed.weight")).read();
  }

  /** Puts what stands before the suffix through the model, for all candidates alike, in passes of the usual size. */
  #fillCache(): void {
    const { before } = this.problem;
    const { model, overlay } = this.flagged;
    const [batch, cache] = [this.#batch, this.#cache];
    const step = Math.max(1, Math.floor(PASS_IDS / batch));
    while (cache.length < before.length) {
      this.#arena.reset();
      const piece = before.slice(cache.length, cache.length + step);
      const ids = Array.from({ length: batch }, () => piece).flat();
      const options = { batch, overlay, cache, sequenceLength: cache.capacity };
      forward(new Tape(this.#arena, false), model, ids, options);
    }
  }

  async #evaluatePass(suffixes: readonly (readonly number[])[]): Promise<number[]> {
    const { model, overlay } = this.flagged;
    const { before, after, target } = this.problem;
    const batch = this.#batch;
    const cache = this.#cache;
    this.#fillCache();
    this.#arena.reset();
    const tape = new Tape(this.#arena, false);
    // The cache holds so many sequences: where fewer suffixes are left, the first stands in for the others.
    const ids = Array.from({ length: batch }, (_, i) => [
      ...(suffixes[i] ?? (suffixes[0] as readonly number[])),
      ...after,
      ...target,
    ]).flat();
    const all = forward(tape, model, ids, { batch, overlay, cache });
    cache.truncate(before.length);
    const input: HeadInput = { hidden: this.#targetRows(tape, all, batch, ids.length / batch), overlay };

    const { targets, shares } = this.#targets(batch);
    const rows = targets.length;
    const targetIds = tape.from(targets);
    const losses = tape.empty([rows]);
    const flags = this.#flagTargets(tape, rows).map((ids) => ({ ids, losses: tape.empty([rows]) }));
    inChunks(tape, model, input, (chunk, part) => {
      const logits = head(chunk, model, part(input.hidden), overlay);
      crossEntropy(chunk, logits, part(targetIds), { into: part(losses) });
      for (const flag of flags) crossEntropy(chunk, logits, part(flag.ids), { into: part(flag.losses) });
    });
    const nats = await losses.read();
    const flagNats = await Promise.all(flags.map((flag) => flag.losses.read()));
    const count = rows / batch;
    return suffixes.map((_, s) => {
      let loss = 0;
      for (let row = s * count; row < (s + 1) * count; row++) {
        // A row that predicts nothing has the share 0.
        loss += (shares[row] as number) * (nats[row] as number);
        if (flags.length > 0) loss -= this.flagWeight * Math.log(silence(flagNats, row));
      }
      return loss;
    });
  }

  /** Every flag as what all rows are to predict; none where the attacker takes no heed of them. */
  #flagTargets(tape: Tape, rows: number): Tensor[] {
    const ids = this.flagWeight > 0 ? this.flagged.flagIds : [];
    return ids.map((id) => tape.from(new Uint32Array(rows).fill(id)));
  }

  /** The rows before each of the target's tokens and after the last, of every sequence. */
  #targetRows(tape: Tape, hidden: Tensor, batch: number, length: number): Tensor {
    const count = this.problem.target.length + 1;
    const rows = Uint32Array.from({ length: batch * count }, (_, i) => {
      const sequence = Math.floor(i / count);
      return (sequence + 1) * length - count + (i % count);
    });
    return embedding(tape, hidden, tape.from(rows));
  }

  /** What those rows are to predict, and what each counts for: the last of a sequence nothing. */
  #targets(batch: number): { targets: Uint32Array; shares: Float32Array } {
    const { target } = this.problem;
    const targets = Array.from({ length: batch }, () => [...target, 0]).flat();
    const shares = Array.from({ length: batch }, () => [...target.map(() => 1 / target.length), 0]).flat();
    return { targets: Uint32Array.from(targets), shares: Float32Array.from(shares) };
  }

  dispose(): void {
    this.#cache.dispose();
    this.#arena.dispose();
  }
}

/** 1 - P(flag) at a row from -ln P of every flag. */
function silence(nats: readonly Float32Array[], row: number): number {
  const p = nats.reduce((sum, values) => sum + Math.exp(-(values[row] as number)), 0);
  return Math.max(LEAST_SILENCE, 1 - p);
}
