import { beforeAll, describe, expect, it } from "vitest";
import { align, type Backend } from "../../src/backend.js";
import { type DecodeOptions, decode } from "../../src/generate/decode.js";
import type { Monitor, Observation, Verdict } from "../../src/generate/monitor.js";
import { argmaxOf, GREEDY } from "../../src/generate/sample.js";
import type { DecodeStep } from "../../src/generate/sequence.js";
import type { Region } from "../../src/kernel.js";
import type { Model } from "../../src/model/model.js";
import { Random } from "../../src/random.js";
import { maxDifference } from "../golden.js";
import { baseline, gpt2, llama, logitsOf, loudModel, mistral, phi3 } from "../model/tiny.js";
import { BackendWrapper } from "../ops/split.js";

let backend: Backend;
let model: Model;
const prompt = [3, 1, 4];
beforeAll(async () => {
  backend = await baseline();
  model = await loudModel(backend, llama);
});

const options = (extra: Partial<DecodeOptions> = {}): DecodeOptions => ({
  sampling: GREEDY,
  random: new Random(0),
  maxTokens: 8,
  eosIds: [],
  ...extra,
});

async function stepsOf(extra: Partial<DecodeOptions> = {}, from: readonly number[] = prompt, by = model) {
  const steps: DecodeStep[] = [];
  for await (const step of decode(by, from, options(extra))) steps.push(step);
  return steps;
}

const idsOf = (steps: readonly DecodeStep[]) =>
  steps.flatMap((step) => (step.kind === "token" ? [step.id] : []));

function endOf(steps: readonly DecodeStep[]) {
  const last = steps.at(-1);
  if (last?.kind !== "end") throw new Error("the last step is no end");
  expect(steps.filter(({ kind }) => kind === "end")).toHaveLength(1);
  return last;
}

function logSumExp(logits: Float32Array): number {
  const most = Math.max(...logits);
  return most + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - most), 0));
}

/** Greedy decoding without a cache: a full pass for every token. */
async function plainGreedy(by: Model, from: readonly number[], count: number) {
  const ids = [...from];
  const logprobs: number[] = [];
  for (let i = 0; i < count; i++) {
    const logits = (await logitsOf(by, ids)).slice(-by.config.vocabSize);
    const id = argmaxOf(logits);
    logprobs.push((logits[id] ?? 0) - logSumExp(logits));
    ids.push(id);
  }
  return { ids: ids.slice(from.length), logprobs };
}

/** A monitor that answers with a rule and remembers what it saw. */
function watcher(rule: (seen: Observation) => Verdict, banned?: ReadonlySet<number>) {
  const seen: { generated: number[]; logits: Float32Array; sampled: number }[] = [];
  const monitor: Monitor = {
    ...(banned ? { banned } : {}),
    observe(observation) {
      const { generated, logits, likeliest, sampled } = observation;
      expect(likeliest).toBe(argmaxOf(logits));
      expect(observation.logSumExp).toBeCloseTo(logSumExp(logits), 5);
      seen.push({ generated: [...generated], logits: Float32Array.from(logits), sampled });
      return { verdict: rule(observation), notes: { turn: seen.length } };
    },
  };
  return { monitor, seen };
}

/** A monitor of a few ids' logits, and what it saw of them as log-probabilities. */
function watching(watches: readonly number[], banned: ReadonlySet<number> = new Set(), append?: number) {
  const seen: number[][] = [];
  const monitor: Monitor = {
    watches,
    banned,
    observe({ logits, logSumExp }) {
      seen.push(Array.from(logits, (logit) => logit - logSumExp));
      const verdict: Verdict = append === undefined ? GO_ON : { action: "append", ids: [append] };
      return { verdict, notes: {} };
    },
  };
  return { monitor, seen };
}

/** Counts the bytes that are read. */
class ReadingBackend extends BackendWrapper {
  bytes = 0;

  override read(region: Region, into?: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
    this.bytes += region.byteLength;
    return super.read(region, into);
  }
}

const GO_ON: Verdict = { action: "continue" };

describe("decoding", () => {
  it.each([
    ["llama", llama],
    ["mistral", mistral],
    ["gpt2", gpt2],
    // Its factors change on the way.
    ["phi3", phi3],
  ])("%s: over the cache is decoding without it", async (_, config) => {
    const by = await loudModel(backend, config);
    const expected = await plainGreedy(by, prompt, 10);
    const steps = await stepsOf({ maxTokens: 10 }, prompt, by);
    expect(idsOf(steps)).toEqual(expected.ids);
    const logprobs = steps.flatMap((step) => (step.kind === "token" ? [step.logprob] : []));
    expect(maxDifference(logprobs, expected.logprobs)).toBeLessThan(1e-4);
    expect(endOf(steps)).toMatchObject({ reason: "length", ids: expected.ids });
    by.dispose();
  });

  it("goes back to LongRoPE's short factors where tokens are taken back", async () => {
    const by = await loudModel(backend, phi3);
    let isFirst = true;
    const { monitor, seen } = watcher(({ generated }) => {
      if (generated.length < 7 || !isFirst) return GO_ON;
      isFirst = false;
      return { action: "rollback", length: 3 };
    });
    const steps = await stepsOf({ monitor, maxTokens: 8 }, prompt, by);
    const ids = [...prompt, ...endOf(steps).ids];
    expect(seen.map(({ generated }) => generated.length)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7]);
    for (const { generated, logits } of seen) {
      const whole = await logitsOf(by, ids.slice(0, prompt.length + generated.length));
      expect(maxDifference(logits, whole.slice(-phi3.vocabSize))).toBeLessThan(1e-4);
    }
    by.dispose();
  });

  it("ends at its length, even of 0", async () => {
    expect(await stepsOf({ maxTokens: 0 })).toEqual([{ kind: "end", reason: "length", ids: [], notes: {} }]);
  });

  it("ends before an end-of-sequence token, whichever of them it is", async () => {
    const free = idsOf(await stepsOf());
    const at = free.findIndex((id, i) => i > 0 && !free.slice(0, i).includes(id));
    const steps = await stepsOf({ eosIds: [99, free[at] ?? 0] });
    expect(endOf(steps)).toMatchObject({ reason: "eos", ids: free.slice(0, at) });
    expect(idsOf(steps)).toEqual(free.slice(0, at));
  });

  it("ends with the context", async () => {
    const full = Array.from({ length: 24 }, (_, i) => i % 19);
    // The last position still has its prediction, which no position has room for.
    expect(endOf(await stepsOf({ maxTokens: 50 }, full)).ids).toHaveLength(1);
    const steps = await stepsOf({ maxTokens: 50 }, full.slice(0, 20));
    expect(endOf(steps)).toMatchObject({ reason: "context" });
    expect(idsOf(steps)).toHaveLength(5);
  });

  it.each([
    [[], {}, /^prompt: there must be at least one token/],
    [Array(25).fill(1), {}, /^prompt: 25 tokens are longer than the model's context of 24/],
    [[19], {}, /token id 19/],
    [[1], { maxTokens: -1 }, /^maxTokens must/],
    [[1], { maxTokens: Number.NaN }, /^maxTokens must/],
    [[1], { sampling: { ...GREEDY, topP: 2 } }, /^topP must/],
  ])("refuses %j with %j", async (from, extra, message) => {
    const { used } = backend.memory();
    await expect(stepsOf(extra, from)).rejects.toThrow(message);
    await expect(stepsOf(extra, from)).rejects.toThrow(RangeError);
    expect(backend.memory().used).toBe(used);
  });

  it("frees its memory, however it ends", async () => {
    const { used } = backend.memory();
    await stepsOf();
    for await (const _ of decode(model, prompt, options())) break;
    expect(backend.memory().used).toBe(used);
  });

  it.each([
    ["greedy", GREEDY],
    ["sampling", { temperature: 1, topK: 5, topP: 0.9 }],
  ])("%s: allocates nothing after its first token", async (_, sampling) => {
    const reports = [];
    for await (const step of decode(model, prompt, options({ sampling, maxTokens: 16 }))) {
      if (step.kind === "token") reports.push(backend.memory());
    }
    expect(reports).toHaveLength(16);
    for (const report of reports) expect(report).toEqual(reports[0]);
    // Keys and values of two layers, for 3 + 16 positions of 2 heads of 4.
    expect(reports[0]?.uses.kvCache).toBe(4 * align(19 * 2 * 4 * 4));
  });

  it("reads a few numbers a token where nobody looks at all logits", async () => {
    const reading = new ReadingBackend(backend);
    const by = await loudModel(reading, llama);
    const bytesOf = async (extra: Partial<DecodeOptions>) => {
      reading.bytes = 0;
      const ids = idsOf(await stepsOf({ maxTokens: 6, ...extra }, prompt, by));
      return { ids, bytes: reading.bytes / 6 };
    };
    const watched = await bytesOf({ monitor: watcher(() => GO_ON).monitor });
    const quiet = await bytesOf({});
    // The likeliest id, its logit, and its cross-entropy.
    expect(quiet).toEqual({ ids: watched.ids, bytes: 12 });
    expect(watched.bytes).toBe(12 + 19 * 4);
    const few = await bytesOf({ monitor: watching([3, 5]).monitor });
    expect(few).toEqual({ ids: watched.ids, bytes: 12 + 2 * 4 });
    by.dispose();
  });

  it("stops between two tokens when its signal is aborted, with its reason", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const { used } = backend.memory();
    const ids: number[] = [];
    const run = async () => {
      for await (const step of decode(model, prompt, options({ signal: controller.signal }))) {
        if (step.kind === "token") ids.push(step.id);
        if (ids.length === 3) controller.abort(reason);
      }
    };
    await expect(run()).rejects.toBe(reason);
    expect(ids).toHaveLength(3);
    expect(backend.memory().used).toBe(used);
  });

  it("lets a timer abort it, though nothing in it waits", async () => {
    const long = await loudModel(backend, { ...llama, contextLength: 8000 });
    const run = stepsOf({ maxTokens: 8000, signal: AbortSignal.timeout(30) }, prompt, long);
    await expect(run).rejects.toThrow(expect.objectContaining({ name: "TimeoutError" }));
    long.dispose();
  });

  it("draws by its seed", async () => {
    const draw = async (seed: number) =>
      idsOf(
        await stepsOf({
          sampling: { temperature: 2, topK: 0, topP: 1 },
          random: new Random(seed),
          maxTokens: 20,
        }),
      );
    expect(await draw(1)).toEqual(await draw(1));
    expect(await draw(1)).not.toEqual(await draw(2));
  });
});

describe("a monitor", () => {
  it("sees the raw logits of every position, under any sampling", async () => {
    const { monitor, seen } = watcher(() => GO_ON);
    const sampling = { temperature: 3, topK: 2, topP: 0.5 };
    const steps = await stepsOf({ monitor, sampling });
    const ids = [...prompt, ...idsOf(steps)];
    expect(seen).toHaveLength(8);
    const full = await logitsOf(model, ids);
    for (const [i, { logits, generated, sampled }] of seen.entries()) {
      const row = (prompt.length - 1 + i) * 19;
      expect(maxDifference(logits, full.slice(row, row + 19))).toBeLessThan(1e-4);
      expect(generated).toEqual(ids.slice(prompt.length, prompt.length + i));
      expect(sampled).toBe(ids[prompt.length + i]);
    }
    expect(steps.flatMap((step) => (step.kind === "token" ? [step.notes.turn] : []))).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8,
    ]);
  });

  it.each([0, 1.5])("of a few ids sees theirs alone, at temperature %d", async (temperature) => {
    const { monitor, seen } = watching([5, 3]);
    const sampling = { ...GREEDY, temperature };
    const ids = [...prompt, ...idsOf(await stepsOf({ monitor, sampling }))];
    expect(seen).toHaveLength(8);
    const full = await logitsOf(model, ids);
    for (const [i, logprobs] of seen.entries()) {
      const row = full.slice((prompt.length - 1 + i) * 19, (prompt.length + i) * 19);
      const expected = [5, 3].map((id) => (row[id] as number) - logSumExp(row));
      expect(maxDifference(logprobs, expected)).toBeLessThan(1e-4);
    }
  });

  it("of a few ids bans and appends others", async () => {
    const free = idsOf(await stepsOf());
    const banned = new Set([free[0] ?? 0]);
    expect(idsOf(await stepsOf({ monitor: watching([3], banned).monitor }))).toEqual(
      idsOf(await stepsOf({ monitor: watcher(() => GO_ON, banned).monitor })),
    );
    const steps = await stepsOf({ monitor: watching([3], new Set(), 7).monitor, maxTokens: 1 });
    const logits = (await logitsOf(model, prompt)).slice(-19);
    expect(steps[0]).toMatchObject({ id: 7 });
    const { logprob } = steps[0] as Extract<DecodeStep, { kind: "token" }>;
    expect(logprob).toBeCloseTo((logits[7] as number) - logSumExp(logits), 4);
  });

  it("bans what only it may place", async () => {
    const free = idsOf(await stepsOf());
    const banned = new Set([free[0] ?? 0]);
    const { monitor, seen } = watcher(() => GO_ON, banned);
    const found = idsOf(await stepsOf({ monitor }));
    expect(found.some((id) => banned.has(id))).toBe(false);
    expect(argmaxOf(seen[0]?.logits ?? [])).toBe(free[0]);
  });

  it("stops: the token at hand is not taken", async () => {
    const free = idsOf(await stepsOf());
    const { monitor } = watcher(({ generated }) =>
      generated.length === 3 ? { action: "stop", reason: "flag" } : GO_ON,
    );
    const steps = await stepsOf({ monitor });
    expect(endOf(steps)).toEqual({ kind: "end", reason: "flag", ids: free.slice(0, 3), notes: { turn: 4 } });
  });

  it("stops before an end-of-sequence token counts", async () => {
    const [first = 0] = idsOf(await stepsOf());
    const { monitor } = watcher(() => ({ action: "stop", reason: "mine" }));
    expect(endOf(await stepsOf({ monitor, eosIds: [first] })).reason).toBe("mine");
  });

  it("replaces the response", async () => {
    const { monitor } = watcher(({ generated }) =>
      generated.length === 2 ? { action: "replace", text: "no" } : GO_ON,
    );
    const end = endOf(await stepsOf({ monitor }));
    expect(end).toMatchObject({ reason: "replaced", text: "no" });
    expect(end.ids).toHaveLength(2);
  });

  it("appends tokens in place of the one at hand, and the model reads them", async () => {
    const { monitor } = watcher(({ generated }) =>
      generated.length === 2 ? { action: "append", ids: [7, 8, 9] } : GO_ON,
    );
    const found = idsOf(await stepsOf({ monitor }));
    const before = await plainGreedy(model, prompt, 2);
    const after = await plainGreedy(model, [...prompt, ...before.ids, 7, 8, 9], 3);
    expect(found).toEqual([...before.ids, 7, 8, 9, ...after.ids]);
  });

  it("rolls back, and what follows is what the kept tokens alone would give", async () => {
    let rolled = 0;
    const { monitor, seen } = watcher(({ generated }) =>
      generated.length === 5 && rolled++ === 0 ? { action: "rollback", length: 2 } : GO_ON,
    );
    const steps = await stepsOf({ monitor });
    const free = (await plainGreedy(model, prompt, 8)).ids;
    expect(steps[5]).toEqual({ kind: "rollback", length: 2, notes: { turn: 6 } });
    expect(endOf(steps).ids).toEqual(free);
    // Positions 2 to 4 came twice, with the same logits.
    expect(idsOf(steps)).toHaveLength(11);
    expect(maxDifference(seen[6]?.logits ?? [], seen[2]?.logits ?? [])).toBeLessThan(1e-5);
  });

  it("rolls back to the prompt", async () => {
    let rolled = 0;
    const { monitor } = watcher(({ generated }) =>
      generated.length === 4 && rolled++ === 0 ? { action: "rollback", length: 0 } : GO_ON,
    );
    expect(endOf(await stepsOf({ monitor })).ids).toEqual((await plainGreedy(model, prompt, 8)).ids);
  });

  it("that rolls back without end is found out", async () => {
    const { monitor } = watcher(() => ({ action: "rollback", length: 0 }));
    await expect(stepsOf({ monitor })).rejects.toThrow(/rolls back without end/);
  });
});
