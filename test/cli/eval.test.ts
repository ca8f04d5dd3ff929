import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import type { Evaluation } from "../../src/eval/evaluation.js";
import { fail, HARMFUL, jsonLines, lines, succeed, TEXT, TRAIN, workshop } from "./run.js";

const folder = workshop({ adapter: true });

const EVAL = [
  ...["eval", "--model", "model", "--harmful", "harmful.jsonl", "--benign", "benign.jsonl"],
  ...["--resamples", "50", "--out"],
];
const evaluationOf = async (out: string): Promise<Evaluation> =>
  JSON.parse(await readFile(join(folder(), out, "metrics.json"), "utf8"));

beforeAll(async () => {
  await succeed(folder(), ...TRAIN, "--seed", "5", "--out", "second");
});

describe("eval", () => {
  it("writes what it found, and shows it", async () => {
    const shown = await succeed(folder(), ...EVAL, "one", "--adapter", "adapter");
    expect(shown).toMatch(/^ +AUROC +TPR at 1 % FPR/);
    expect(shown).toMatch(/\nred flag +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\] .* threshold=0\.5\n/);
    expect(shown).toMatch(/KL, nats a token/);
    expect(shown).toMatch(/\n3 harmful, 2 benign; intervals of 95 %, 50 resamples\none\n$/);
    expect(await readdir(join(folder(), "one"))).toEqual(["metrics.json", "report.html"]);
    expect(await readFile(join(folder(), "one/report.html"), "utf8")).toContain(
      "<h1>Red flag evaluation</h1>",
    );
    const { version, run, data, detectors, along, utility, examples, training } = await evaluationOf("one");
    expect(training).toHaveLength(1);
    expect(training[0]).toMatchObject({ adapter: "adapter", steps: [{ step: 1 }, { step: 2 }, { step: 3 }] });
    expect(Object.keys(training[0]?.steps[0]?.terms ?? {})).toEqual(["ce", "post", "benign"]);
    expect(version).toBe(1);
    expect(run).toMatchObject({
      ...{ seed: 0, resamples: 50, model: "model", adapters: ["adapter"], decision: "threshold=0.5" },
      command: ["oriflamme", ...EVAL, "one", "--adapter", "adapter"],
    });
    expect(data.harmful).toEqual({ path: "harmful.jsonl", examples: 3, generated: 0, left_out: 0 });
    expect(detectors.map(({ name }) => name)).toEqual(["red flag"]);
    expect(detectors[0]?.auroc_by_seed).toHaveLength(1);
    // "ate the hen" after a space of its own: 12 tokens, and a position after the last.
    expect(along).toHaveLength(13);
    expect(along[0]).toMatchObject({ harmful: { count: 3 }, benign: { count: 2 } });
    expect(utility?.tokens).toBe(24);
    expect(examples.some(({ harmful }) => harmful)).toBe(true);
  });

  it("says the same as score", async () => {
    await succeed(folder(), ...EVAL, "same", "--adapter", "adapter");
    const score = ["score", "--model", "model", "--adapter", "adapter", "--out", "s.jsonl", "--data"];
    const maxima = async (data: string) =>
      (await jsonLines(folder(), ...score, data)).map(({ flag_max }) => flag_max as number);
    const [harmful, benign] = [await maxima("harmful.jsonl"), await maxima("benign.jsonl")];
    const pairs = harmful.flatMap((h) => benign.map((b) => Number(h > b) + Number(h === b) / 2));
    const { detectors } = await evaluationOf("same");
    expect(detectors[0]?.auroc?.value).toBeCloseTo(pairs.reduce((sum, x) => sum + x) / pairs.length, 12);
  });

  it("takes several adapters as seeds, and gives the same figures again", async () => {
    const args = ["--adapter", "adapter", "second", "--decision", "cumulative=0.1"];
    const detectors = await jsonLines(folder(), ...EVAL, "two", ...args);
    expect(detectors).toHaveLength(1);
    expect(detectors[0]).toMatchObject({ name: "red flag", rule: "cumulative=0.1" });
    expect(detectors[0]?.auroc_by_seed).toHaveLength(2);
    const first = await evaluationOf("two");
    await succeed(folder(), ...EVAL, "two", ...args);
    const again = await evaluationOf("two");
    expect({ ...again, run: null }).toEqual({ ...first, run: null });
  });

  it("attacks every adapter, and shows a sweep", async () => {
    const sweep = {
      version: 1,
      sweep: {
        parameters: ["benign"],
        points: [
          {
            ...{ values: [1], seed: 0, auroc: 0.5, tpr_at_1_percent_fpr: 0.25 },
            ...{ kl_per_token: 0.125, perplexity_ratio: 1.5 },
          },
        ],
        failed: [],
      },
    };
    await writeFile(join(folder(), "sweep.json"), JSON.stringify(sweep));
    const few = { tokens: 2, maxTokens: 3 };
    const gcg = { steps: 2, width: 4, topK: 8, suffix: 3, target: 2, maxTokens: 3, examples: 1 };
    await writeFile(join(folder(), "attacks.json"), JSON.stringify({ prefill: few, gcg }));
    const shown = await succeed(
      folder(),
      ...[...EVAL, "attacked", "--adapter", "adapter", "second", "--sweep", "sweep.json"],
      ...["--attacks", "prefill,gcg", "--attack-config", "attacks.json", "--seed", "4"],
    );
    expect(shown).toMatch(/\nprefill, 0 .*\nprefill, 2 .*\ngcg, 0 .*\ngcg, 2 /);
    const { attacks, sweep: found } = await evaluationOf("attacked");
    expect(attacks.map(({ attack, options }) => [attack, options.adapter, options.seed])).toEqual([
      ["prefill", "adapter", 4],
      ["gcg", "adapter", 4],
      ["prefill", "second", 4],
      ["gcg", "second", 4],
    ]);
    expect(attacks[0]?.levels.map(({ label }) => label)).toEqual(["0", "1", "2"]);
    expect(found).toEqual(sweep.sweep);
  });

  it.each([
    [["--attacks", "ddos"], 2 as const, /attacks: 'ddos' is none of prefill, /],
    [["--attack-config", "attacks.json"], 2 as const, /--attack-config needs --attacks/],
    [
      ["--attacks", "gcg", "--attack-config", "odd.json"],
      1 as const,
      /odd\.json: 'gcg\.speed' is no setting/,
    ],
    [["--sweep", "model/config.json"], 1 as const, /model\/config\.json/],
  ])("refuses %j before any work", async (args, code, message) => {
    await writeFile(join(folder(), "odd.json"), JSON.stringify({ gcg: { speed: 1 } }));
    expect(await fail(folder(), code, ...EVAL, "none", "--adapter", "adapter", ...args)).toMatch(message);
    expect(await readdir(folder())).not.toContain("none");
  });

  it("lets the model answer, leaves out what does not fit, and groups", async () => {
    await writeFile(
      join(folder(), "mixed.jsonl"),
      lines([
        ...HARMFUL.map((example, i) => ({ ...example, category: i === 0 ? "['A', 'B']" : "C" })),
        { prompt: "the cat", language: "en" },
        { prompt: TEXT },
      ]),
    );
    const args = EVAL.map((arg) => (arg === "harmful.jsonl" ? "mixed.jsonl" : arg));
    const shown = await succeed(folder(), ...args, "mixed", "--adapter", "adapter", "--max-tokens", "11");
    expect(shown).toContain("5 harmful (1 answered by the model, 1 left out), 2 benign");
    expect(shown).toContain("one class only");
    const { groups, data } = await evaluationOf("mixed");
    expect(data.harmful).toMatchObject({ examples: 5, generated: 1, left_out: 1 });
    expect(groups.map(({ by, value, harmful, examples }) => [by, value, harmful, examples])).toEqual([
      ["category", "['A', 'B']", true, 1],
      ["category", "C", true, 2],
      ["language", "en", true, 1],
    ]);
    // Cut before "ate " is over: no detector could see the harm.
    const cut = await succeed(
      folder(),
      ...EVAL,
      "cut",
      "--adapter",
      "adapter",
      "--max-tokens",
      "3",
      "--harmful",
      "mixed.jsonl",
    );
    expect(cut).toContain("5 harmful (1 answered by the model, 4 left out)");
    const own = await succeed(
      folder(),
      ...EVAL,
      "own",
      "--adapter",
      "adapter",
      "--max-tokens",
      "4",
      "--generate",
    );
    expect(own).toContain("3 harmful (3 answered by the model), 2 benign (2 answered by the model)");
    expect(own).not.toContain("one class only");
    expect((await evaluationOf("own")).detectors[0]?.delays).toEqual([]);
  });
});

describe("eval beside others", () => {
  it("has a row for each baseline and guard, and for what the flag says with each", async () => {
    await writeFile(
      join(folder(), "guard.mjs"),
      `import { createInterface } from "node:readline";
for await (const line of createInterface({ input: process.stdin })) {
  const { index, prompt, response } = JSON.parse(line);
  console.log(JSON.stringify({ index, score: prompt.startsWith("the ") && response === "ate the hen" ? 1 : 0 }));
}`,
    );
    await writeFile(join(folder(), "phrases.txt"), "^saw\n");
    const detectors = await jsonLines(
      folder(),
      ...[...EVAL, "all", "--adapter", "adapter", "--train-harmful", "harmful.jsonl"],
      ...["--train-benign", "benign.jsonl", "--fixed-pos", "second", "--refusal", "phrases.txt"],
      ...["--classifier", `'${process.execPath}' guard.mjs`, "--classifier-threshold", "0.9"],
    );
    expect(detectors.map(({ name, rule }) => [name, rule])).toEqual([
      ["red flag", "threshold=0.5"],
      ["Fixed-Pos", "threshold=0.5 before the first token"],
      ["linear probe", expect.stringMatching(/^log-odds >= /)],
      ["n-grams", expect.stringMatching(/^log-odds >= /)],
      ["refusal", "one of 1 phrases"],
      ["classifier", "score >= 0.9"],
      ["red flag or refusal", "either flags"],
      ["red flag or classifier", "either flags"],
    ]);
    const rowOf = (name: string) => detectors.find((detector) => detector.name === name);
    expect(rowOf("classifier")?.auroc).toEqual({ value: 1, low: 1, high: 1 });
    expect(rowOf("classifier")?.flag_rate).toEqual({ value: 1, low: 1, high: 1 });
    // The benign answers begin with "saw".
    expect(rowOf("refusal")?.false_positive_rate).toEqual({ value: 1, low: 1, high: 1 });
    expect(rowOf("n-grams")?.auroc).toMatchObject({ value: 1 });
    expect(detectors.flatMap(Object.keys)).not.toContain("roc");
    expect((await evaluationOf("all")).detectors.map(({ roc }) => roc.at(-1))).toEqual(Array(8).fill([1, 1]));
  });
});

describe("calibrate", () => {
  const CALIBRATE = ["calibrate", "--model", "model", "--adapter", "second", "--benign"];
  const answers = Array.from({ length: 19 }, (_, i) => ({
    prompt: `the ${"abcdefghijklmnopqrstuvwxyz"[i]}`,
    ...(i % 3 === 0 ? {} : { response: `saw ${i}` }),
  }));

  it("fits the level that score, generate and eval then use", async () => {
    await writeFile(join(folder(), "calibration.jsonl"), lines(answers));
    const args = ["calibration.jsonl", "--fpr", "0.1", "--decision", "cumulative", "--max-tokens", "20"];
    const [line] = await jsonLines(folder(), ...CALIBRATE, ...args);
    expect(line).toMatchObject({ false_positive_rate: 0.1, examples: 19, left_out: 0 });
    expect(line?.decision).toMatch(/^cumulative=0\.\d+$/);
    const facts = JSON.parse(await readFile(join(folder(), "second/oriflamme.json"), "utf8"));
    expect(facts.calibration).toEqual({
      decision: line?.decision,
      fit: { falsePositiveRate: 0.1, examples: 19, data: line?.data },
    });

    const score = ["score", "--model", "model", "--adapter", "second", "--data", "calibration.jsonl"];
    const scores = await jsonLines(folder(), ...score, "--out", "s.jsonl", "--max-tokens", "20");
    // The level lies just above the 18th smallest score of 19.
    expect(scores.filter(({ first_flag }) => first_flag !== null)).toHaveLength(1);

    const out = ["--adapter", "second", "--benign", "calibration.jsonl", "--max-tokens", "20"];
    const shown = await succeed(folder(), ...EVAL, "calibrated", ...out);
    expect(shown).toContain(`${line?.decision}\n`);
    expect(shown).toMatch(/\ncalibration\.jsonl: second had its level from these; .* is no test\n$/);
    const shownLine = await succeed(folder(), ...CALIBRATE, ...args);
    expect(shownLine).toBe(
      `second: ${line?.decision}, at most 10 % of benign conversations flagged; 19 examples\n`,
    );
  });

  it("says how many examples a rate needs, and leaves the adapter as it was", async () => {
    const before = await readFile(join(folder(), "second/oriflamme.json"), "utf8");
    expect(await fail(folder(), 2, ...CALIBRATE, "benign.jsonl")).toBe(
      "fpr: a rate of 0.01 needs at least 99 benign conversations, there are 2",
    );
    await writeFile(join(folder(), "long.jsonl"), lines([{ prompt: TEXT, response: "x" }]));
    expect(await fail(folder(), 1, ...CALIBRATE, "long.jsonl")).toBe(
      "long.jsonl: none of its prompts fits into the model's context",
    );
    expect(await readFile(join(folder(), "second/oriflamme.json"), "utf8")).toBe(before);
  });
});

describe("eval refuses", () => {
  const never = [...EVAL, "never", "--adapter", "adapter"];

  it.each<[string, 1 | 2, string[], RegExp]>([
    ["a rule that needs a draw", 2, ["--decision", "sampled"], /^decision: 'sampled' needs a draw/],
    ["an adapter that is none", 1, ["--adapter", "nowhere"], /^nowhere: no such file/],
    ["a file that is none", 1, ["--harmful", "nowhere.jsonl"], /^nowhere\.jsonl: no such file/],
    ["a place that is a file", 1, ["--out", "text.txt"], /^text\.txt: cannot be written/],
    [
      "half of a baseline's data",
      2,
      ["--train-benign", "benign.jsonl"],
      /--train-harmful and --train-benign together/,
    ],
    ["a baseline that is none", 1, ["--fixed-pos", "model"], /^model/],
    ["phrases that are none", 1, ["--refusal", "nowhere.txt"], /^nowhere\.txt: no such file/],
    [
      "a classifier that fails",
      1,
      ["--classifier", "false"],
      /^false: (ended with code 1|gave no score for 5)/,
    ],
  ])("%s", async (_, code, args, message) => {
    expect(await fail(folder(), code, ...never, ...args)).toMatch(message);
    expect(await readdir(folder())).not.toContain("never");
  });

  it("data of which nothing can be read", async () => {
    await writeFile(join(folder(), "long.jsonl"), lines([{ prompt: TEXT, response: "x" }]));
    const message = await fail(folder(), 1, ...never, "--benign", "long.jsonl");
    expect(message).toBe("long.jsonl: none of its 1 examples fits into the model's context");
  });
});
