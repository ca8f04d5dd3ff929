import { beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { decode } from "../../src/generate/decode.js";
import type { Monitor } from "../../src/generate/monitor.js";
import { PrefixCache } from "../../src/generate/prefix-cache.js";
import { GREEDY } from "../../src/generate/sample.js";
import type { Kernel, KernelArgs } from "../../src/kernel.js";
import type { ModelConfig } from "../../src/model/config.js";
import type { Overlay } from "../../src/model/lora.js";
import type { Model } from "../../src/model/model.js";
import { kvAppendKernel } from "../../src/ops/kv-append.js";
import { Random } from "../../src/random.js";
import { baseline, llama, loudModel, phi3, randomIds } from "../model/tiny.js";
import { BackendWrapper } from "../ops/split.js";

/** Counts the positions that go through the first layer. */
class CountingBackend extends BackendWrapper {
  positions = 0;

  override dispatch<K extends Kernel<string, string, string, string>>(kernel: K, args: KernelArgs<K>): void {
    const { rows = 0 } = args as unknown as Record<string, number>;
    if ((kernel as Kernel) === kvAppendKernel) this.positions += rows / llama.layers;
    super.dispatch(kernel, args);
  }
}

let inner: Backend;
let backend: CountingBackend;
let model: Model;
beforeAll(async () => {
  inner = await baseline();
  backend = new CountingBackend(inner);
  model = await loudModel(backend, { ...llama, contextLength: 300 });
});

interface Extra {
  readonly overlay?: Overlay;
  readonly monitor?: Monitor;
  readonly kvType?: "f32" | "f16";
}

/** The new ids, and how many positions it took. */
async function run(prompt: readonly number[], cache?: PrefixCache, extra: Extra = {}, by = model) {
  backend.positions = 0;
  const ids: number[] = [];
  const steps = decode(by, prompt, {
    ...{ sampling: GREEDY, random: new Random(0), maxTokens: 6, eosIds: [], cache },
    ...extra,
  });
  for await (const step of steps) if (step.kind === "end") ids.push(...step.ids);
  return { ids, positions: backend.positions };
}

const prompt = randomIds(100, 19);

describe("a prefix cache", () => {
  it("runs of a conversation only what is new, and gives the same tokens", async () => {
    const cache = new PrefixCache(model);
    const first = await run(prompt, cache);
    expect(first).toEqual(await run(prompt));
    // The last token was taken, but has not gone through the model.
    expect(cache.ids).toEqual([...prompt, ...first.ids.slice(0, 5)]);
    const turn = [...prompt, ...first.ids, 4, 5, 6];
    const second = await run(turn, cache);
    expect(second.ids).toEqual((await run(turn)).ids);
    // The token that had not, three new ones, and five of the six that were generated.
    expect(second.positions).toBe(1 + 3 + 5);
    cache.dispose();
  });

  it.each([
    ["shorter", prompt.slice(0, 70), 1],
    ["the same", prompt, 1],
    ["another from the middle on", [...prompt.slice(0, 40), ...randomIds(30, 19, 2)], 30],
    ["another altogether", [(prompt[0] ?? 0) === 0 ? 1 : 0, 2, 3], 3],
  ])("then takes a prompt that is %s", async (_, next, fresh) => {
    const cache = new PrefixCache(model);
    await run(prompt, cache);
    const found = await run(next, cache);
    expect(found.ids).toEqual((await run(next)).ids);
    // What is shared by chance makes it fewer, never more.
    expect(found.positions).toBeLessThanOrEqual(fresh + 5);
    expect(found.positions).toBeGreaterThan(5);
    cache.dispose();
  });

  it("holds what was kept after a rollback", async () => {
    const cache = new PrefixCache(model);
    let rolled = 0;
    const monitor: Monitor = {
      observe: ({ generated }) => ({
        verdict:
          generated.length === 4 && rolled++ === 0
            ? { action: "rollback", length: 1 }
            : { action: "continue" },
        notes: {},
      }),
    };
    const { ids } = await run(prompt, cache, { monitor });
    expect(ids).toEqual((await run(prompt)).ids);
    const turn = [...prompt, ...ids, 3];
    expect((await run(turn, cache)).ids).toEqual((await run(turn)).ids);
    cache.dispose();
  });

  it("holds what went through the model before its consumer left, or the run failed", async () => {
    const cache = new PrefixCache(model);
    const settings = { sampling: GREEDY, random: new Random(0), maxTokens: 6, eosIds: [], cache };
    for await (const _ of decode(model, prompt, settings)) break;
    expect(cache.ids).toEqual(prompt);
    await expect(run([...prompt, 19], cache)).rejects.toThrow(/token id 19/);
    const { ids, positions } = await run([...prompt, 2], cache);
    expect(ids).toEqual((await run([...prompt, 2])).ids);
    expect(positions).toBe(1 + 5);
    cache.dispose();
  });

  it("is lent to one generation at a time", async () => {
    const cache = new PrefixCache(model);
    const settings = { sampling: GREEDY, random: new Random(0), maxTokens: 6, eosIds: [], cache };
    const open = decode(model, prompt, settings);
    await open.next();
    await expect(run(prompt, cache)).rejects.toThrow(/^cache: another generation has it/);
    expect(() => cache.clear()).toThrow(/^cache: a generation has it/);
    await open.return();
    expect((await run(prompt, cache)).positions).toBe(1 + 5);
    cache.dispose();
  });

  it("belongs to one model under one overlay", async () => {
    const overlay: Overlay = { lora: () => undefined };
    const cache = new PrefixCache(model, overlay);
    const other = await loudModel(inner, llama);
    await expect(run(prompt, cache)).rejects.toThrow(/^cache: it belongs to another model or adapter/);
    await expect(run(prompt, new PrefixCache(other))).rejects.toThrow(/belongs to another model/);
    expect((await run(prompt, cache, { overlay })).ids).toEqual((await run(prompt)).ids);
    cache.dispose();
    other.dispose();
  });

  it.each<[string, ModelConfig["position"]]>([
    ["LongRoPE", phi3.position],
    [
      "dynamic scaling",
      { kind: "rope", theta: 100, scaling: { kind: "dynamic", factor: 2, originalContextLength: 8 } },
    ],
  ])("is of no use to a prompt that %s rotates in another way", async (_, position) => {
    const by = await loudModel(inner, { ...phi3, position, contextLength: 60 });
    const cache = new PrefixCache(by);
    // Up to 4 + 6 ids: the keys at the end are those of more than eight positions. Then fewer, more, as many.
    const first = (await run(prompt.slice(0, 4), cache, {}, by)).ids;
    for (const next of [
      prompt.slice(0, 3),
      [...prompt.slice(0, 4), ...first, 5],
      [...prompt.slice(0, 4), ...first],
    ]) {
      expect((await run(next, cache, {}, by)).ids).toEqual((await run(next, undefined, {}, by)).ids);
    }
    cache.dispose();
    by.dispose();
  });

  it("is f16 where it was made so, whatever the run leaves open", async () => {
    const [half, whole] = [new PrefixCache(model, undefined, { type: "f16" }), new PrefixCache(model)];
    await run(prompt, half);
    await run(prompt, whole);
    expect(half.byteLength).toBe(whole.byteLength / 2);
    await run(prompt, half, { kvType: "f16" });
    await expect(run(prompt, half, { kvType: "f32" })).rejects.toThrow(
      /^kvType: f32, but the cache is of f16/,
    );
    const { used } = backend.memory();
    half.clear();
    expect(half.ids).toEqual([]);
    expect(backend.memory().used).toBeLessThan(used);
    whole.dispose();
  });
});
