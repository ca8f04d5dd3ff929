/**
 * What the flag costs while decoding the 15M shape of `bench decode`, by how the model is run:
 *
 *   node bench/run.mjs bench/flag.ts [--rounds N] [--no-revectorize] [--dtype f32 …] [--json]
 *
 * `plain`: no flag. `row`: the vocabulary has the flag's row, nobody reads it. `read`: P(flag) is read at every
 * position and decided upon. The three decode side by side and take turns token by token, in an order that is drawn,
 * so that what the machine does besides meets all of them. Costs are medians of a token's own differences, with the
 * quartiles of the rounds' medians.
 */

import { parseArgs } from "node:util";
import { createBackend } from "../src/backends/create.js";
import { benchLlama } from "../src/cli/bench/llama.js";
import type { WeightType } from "../src/dtype.js";
import { flagMonitor } from "../src/flag/monitor.js";
import { addRedFlag, type FlaggedModel } from "../src/flag/vocab.js";
import { decode } from "../src/generate/decode.js";
import { GREEDY } from "../src/generate/sample.js";
import { Random } from "../src/random.js";

const SHAPE = [288, 6, 6, 6, 768, 32000] as const;
const [PROMPT, TOKENS, CONTEXT] = [16, 200, 512];
const WAYS = ["plain", "row", "read"] as const;
type Way = (typeof WAYS)[number];

const { values: options } = parseArgs({
  allowNegative: true,
  options: {
    rounds: { type: "string", default: "40" },
    revectorize: { type: "boolean", default: false },
    dtype: { type: "string", multiple: true, default: ["f32", "q8_0", "q4_0"] },
    json: { type: "boolean", default: false },
  },
});
const rounds = Number(options.rounds);
if (!Number.isInteger(rounds) || rounds < 1) throw new RangeError(`--rounds must be an integer from 1`);

function decoding(flagged: FlaggedModel, way: Way) {
  const prompt = Array.from({ length: PROMPT }, (_, i) => i + 1);
  // A level that nothing reaches: every run goes on to its length.
  const monitor = flagMonitor(flagged.flagId, { kind: "threshold", level: 1 }, { kind: "stop" });
  return decode(flagged.model, prompt, {
    ...{ sampling: GREEDY, random: new Random(0), maxTokens: TOKENS + 1, eosIds: [] },
    ...(way === "plain" ? {} : { overlay: flagged.overlay }),
    ...(way === "read" ? { monitor } : {}),
  });
}

/**
 * Seconds of each token after the first, which comes with the prompt, of each way. Who begins, and whose cache lies
 * where, is drawn: a place in memory can be worth some percent.
 */
async function round(flagged: FlaggedModel, random: Random): Promise<Record<Way, number[]>> {
  const runs = new Map<Way, ReturnType<typeof decoding>>();
  for (const way of random.shuffle(WAYS)) {
    const run = decoding(flagged, way);
    await run.next();
    runs.set(way, run);
  }
  const times: Record<Way, number[]> = { plain: [], row: [], read: [] };
  for (let token = 0; token < TOKENS; token++) {
    for (const way of random.shuffle(WAYS)) {
      const start = performance.now();
      const { done } = (await runs.get(way)?.next()) ?? {};
      if (done) throw new Error("a run ended before its length");
      times[way].push((performance.now() - start) / 1000);
    }
  }
  for (const run of runs.values()) await run.return();
  return times;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] as number;
}

/** The median of a token's own difference, as a share of the base. */
function cost(times: readonly number[], base: readonly number[]): number {
  return (
    quantile(
      times.map((time, token) => time - (base[token] as number)),
      0.5,
    ) / quantile(base, 0.5)
  );
}

const backend = await createBackend({ kind: "wasm", threads: 1, revectorize: options.revectorize });
if (!options.json) console.log(`${backend.description}; medians of ${rounds} rounds of ${TOKENS} tokens`);
for (const dtype of options.dtype as WeightType[]) {
  const model = await benchLlama(backend, SHAPE, CONTEXT, dtype);
  const flagged = await addRedFlag(model);
  const random = new Random(0);
  await round(flagged, random);
  const all: Record<Way, number[]> = { plain: [], row: [], read: [] };
  const costs: { row: number[]; read: number[] } = { row: [], read: [] };
  for (let i = 0; i < rounds; i++) {
    const times = await round(flagged, random);
    for (const way of WAYS) all[way].push(...times[way]);
    costs.row.push(cost(times.row, times.plain));
    costs.read.push(cost(times.read, times.row));
  }
  const line = {
    dtype,
    variant: backend.variant,
    median_seconds: Object.fromEntries(WAYS.map((way) => [way, quantile(all[way], 0.5)])),
    row_cost: quantile(costs.row, 0.5),
    read_cost: quantile(costs.read, 0.5),
    read_cost_quartiles: [quantile(costs.read, 0.25), quantile(costs.read, 0.75)],
  };
  const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
  const [low = 0, high = 0] = line.read_cost_quartiles;
  if (options.json) console.log(JSON.stringify(line));
  else {
    console.log(
      `${dtype.padEnd(5)} plain ${(1000 * (line.median_seconds.plain as number)).toFixed(3)} ms a token; the row costs ${percent(line.row_cost)}, ` +
        `reading it ${percent(line.read_cost)} (quartiles ${percent(low)} to ${percent(high)})`,
    );
  }
  flagged.dispose();
  model.dispose();
}
backend.dispose();
