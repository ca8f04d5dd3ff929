import { BackendError } from "../../errors.js";
import type { BenchOptions } from "../bench.js";
import { jsonLine, progressBar } from "../terminal.js";
import { caseName } from "./case.js";
import { drawChart, expectChart } from "./chart.js";
import { compare, type Result, ROUNDS } from "./comparison.js";
import { Contender, type ContenderSpec, contenderName } from "./contender.js";
import { installHint, limitSpec, ownSpec, peerSpecs, type Variant } from "./contenders.js";
import { limitCases } from "./limit.js";
import { SUITE_NAMES } from "./names.js";
import { report } from "./report.js";
import { SUITES } from "./suites.js";

/** Passes of a case that each contender makes at least. */
const LEAST_PASSES = 3;

/** Measures the suites of those names, all where there are none, and shows or draws what came out. */
export async function run(given: string[], options: BenchOptions): Promise<void> {
  const names = given.length > 0 ? given : SUITE_NAMES;
  const threads = options.threads ?? 1;
  if (options.chart !== undefined) expectChart();
  const contenders = await start(specsOf(options, threads), threads, names);
  try {
    const results = await measureAll(contenders, names, options, threads);
    if (!options.json) {
      const own = contenders.filter(({ spec }) => spec.who !== "limit");
      const who = own.map(({ spec, description }) => `${contenderName(spec)}: ${description}\n`);
      process.stdout.write(`${who.join("")}${report(results)}\n`);
    }
    if (options.chart !== undefined) {
      await drawChart(
        options.chart,
        results.map(({ line }) => line),
      );
    }
  } finally {
    for (const { contender } of contenders) contender.dispose();
  }
}

/** Ours first, then its limit, then the others. */
function specsOf(options: BenchOptions, threads: number): ContenderSpec[] {
  const isWasm = options.backend !== "webgpu";
  const one: Variant = options.revectorize && isWasm ? "revectorized" : "portable";
  const variants: readonly Variant[] = options.peers && isWasm ? ["portable", "revectorized"] : [one];
  return [
    ...variants.map((variant) => ownSpec(options, threads, variant)),
    ...(isWasm ? variants.flatMap((variant) => limitSpec(threads, variant) ?? []) : []),
    ...(options.peers ? peerSpecs(threads) : []),
  ];
}

interface Started {
  readonly spec: ContenderSpec;
  readonly contender: Contender;
  readonly description: string;
}

/** Starts those that have something to do. A competitor that cannot take part is named on stderr, with a way out. */
async function start(
  specs: readonly ContenderSpec[],
  threads: number,
  names: readonly string[],
): Promise<Started[]> {
  const started: Started[] = [];
  try {
    for (const spec of specs) {
      const isOwn = spec.who === "oriflamme";
      if (!["limit", ...names].some((name) => spec.does[name])) continue;
      if (spec.singleThreaded && threads > 1) {
        note(`${contenderName(spec)}: left out: it runs on one thread only`);
        continue;
      }
      try {
        const { contender, introduction } = await Contender.start(spec);
        if (introduction.variant === undefined || introduction.variant === spec.variant) {
          started.push({ spec, contender, description: introduction.description });
        } else {
          contender.dispose();
          note(`${contenderName(spec)}: left out: this runtime has it only ${introduction.variant}`);
        }
      } catch (error) {
        if (isOwn) throw error;
        const reason = error instanceof Error ? error.message : String(error);
        note(`${contenderName(spec)}: left out: ${reason}; ${installHint(spec)}`);
      }
    }
  } catch (error) {
    for (const { contender } of started) contender.dispose();
    throw error;
  }
  return started;
}

function note(text: string): void {
  process.stderr.write(`oriflamme: ${text}\n`);
}

/** Every case on every contender that does it; with --json a line as soon as it is known. */
async function measureAll(
  started: readonly Started[],
  names: readonly string[],
  options: BenchOptions,
  threads: number,
): Promise<Result[]> {
  const work = [
    ...limitCases(threads).map((benchCase) => ({ name: "limit", benchCase, patience: 1 })),
    ...names.flatMap((name) => {
      const { cases, patience } = SUITES[name] as (typeof SUITES)[string];
      return cases.map((benchCase) => ({ name, benchCase, patience }));
    }),
  ];
  const progress = progressBar("bench", work.length);
  const failures: string[] = [];
  const results: Result[] = [];
  try {
    for (const [done, { name, benchCase, patience }] of work.entries()) {
      progress.update(done, caseName(benchCase));
      const able = started.filter(({ spec }) => spec.does[name]?.includes(benchCase.dtype));
      const plan = {
        rounds: options.peers ? ROUNDS : 1,
        milliseconds: options.time * patience,
        passes: LEAST_PASSES,
        threads,
      };
      const found = await compare(
        benchCase,
        able.map(({ contender }) => contender),
        plan,
        (contender, reason) => {
          const failure = `${contenderName(contender.spec)}: ${caseName(benchCase)}: ${reason}`;
          if (contender.spec.who === "oriflamme") throw new BackendError(failure);
          failures.push(failure);
        },
      );
      results.push(...found);
      if (options.json) for (const { line } of found) jsonLine(line);
    }
  } finally {
    progress.stop();
    for (const failure of failures) note(failure);
  }
  return results;
}
