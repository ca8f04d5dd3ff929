import { KVCache, type KVCacheOptions } from "../model/kv-cache.js";
import type { Overlay } from "../model/lora.js";
import type { Model } from "../model/model.js";
import { rotaryReach } from "../model/rope-frequencies.js";

/**
 * Keys and values that outlive a generation: the next one whose prompt begins with the same ids, as the turns of a
 * conversation do, runs only the rest. It belongs to one model under one overlay; where their weights change (in
 * training) it must be cleared.
 */
export class PrefixCache {
  readonly #cache: KVCache;
  #ids: readonly number[] = [];
  /** The longest sequence whose keys are turned as those that it holds are. */
  #reach = 0;
  #isTaken = false;

  /** @throws RangeError as `KVCache` does */
  constructor(
    readonly model: Model,
    readonly overlay?: Overlay,
    options: KVCacheOptions = {},
  ) {
    this.#cache = new KVCache(model.backend, model.config, model.config.contextLength, 1, options);
  }

  /** The ids whose keys and values it holds. */
  get ids(): readonly number[] {
    return this.#ids;
  }

  get type(): KVCache["type"] {
    return this.#cache.type;
  }

  /** Bytes that the keys and values take. */
  get byteLength(): number {
    return this.#cache.byteLength;
  }

  /**
   * Lends the cache to a generation, cut to what it shares with the prompt; the last id is never held, as it has to go
   * through the model for its logits.
   * @throws RangeError where it belongs to another model or overlay, or another generation has it
   */
  take(model: Model, overlay: Overlay | undefined, prompt: readonly number[]): KVCache {
    if (model !== this.model || overlay !== this.overlay) {
      throw new RangeError("cache: it belongs to another model or adapter");
    }
    if (this.#isTaken) throw new RangeError("cache: another generation has it");
    const differs = prompt.findIndex((id, i) => id !== this.#ids[i]);
    const shared = differs < 0 ? prompt.length : differs;
    const isTurnedAlike = rotaryReach(model.config, prompt.length) === this.#reach;
    this.#cache.truncate(isTurnedAlike ? Math.min(shared, prompt.length - 1) : 0);
    this.#isTaken = true;
    return this.#cache;
  }

  /**
   * Takes it back from a generation.
   * @param ids those that went through the model, of which it holds as many as it has positions
   * @param sequenceLength what the last pass took for the sequence's
   */
  giveBack(ids: readonly number[], sequenceLength: number): void {
    this.#reach = rotaryReach(this.model.config, sequenceLength);
    this.#ids = ids.slice(0, this.#cache.length);
    this.#isTaken = false;
  }

  /** Forgets everything, and gives the memory back. */
  clear(): void {
    if (this.#isTaken) throw new RangeError("cache: a generation has it");
    this.#cache.dispose();
    this.#ids = [];
  }

  /** The same: what holds it may be disposed of. */
  dispose(): void {
    this.clear();
  }
}
