// An evaluation of nothing: made-up numbers of the shape of real ones, for looking at the report and for its tests.

import type {
  AlongResult,
  AttackLevel,
  DetectorResult,
  Estimate,
  Evaluation,
  GroupResult,
  SweepPoint,
  TokenMap,
  TrainingCurve,
} from "../../src/eval/evaluation.js";
import { Random } from "../../src/random.js";

const STEPS = 400;
const POSITIONS = 120;

/** Made-up numbers about a model that does not exist. The same each time. */
export function syntheticEvaluation(): Evaluation {
  const random = new Random(1);
  return {
    version: 1,
    run: {
      command: [
        ...[
          "oriflamme",
          "eval",
          "--model",
          "synthetic/no-model",
          "--adapter",
          "made-up/seed-0",
          "made-up/seed-1",
        ],
        ...["made-up/seed-2", "--harmful", "made up/harmful.jsonl", "--benign", "made up/benign.jsonl"],
        ...["--decision", "threshold=0.42", "--out", "synthetic-report"],
      ],
      date: "2026-01-02T03:04:05.000Z",
      seed: 0,
      resamples: 1000,
      versions: { oriflamme: "0.0.0", node: "24.0.0" },
      backend: "synthetic backend, 2 threads",
      model: "synthetic/no-model",
      adapters: ["made-up/seed-0", "made-up/seed-1", "made-up/seed-2"],
      decision: "threshold=0.42",
    },
    data: {
      harmful: { path: "made up/harmful.jsonl", examples: 180, generated: 20, left_out: 3 },
      benign: { path: "made up/benign.jsonl", examples: 400, generated: 0, left_out: 0 },
    },
    detectors: detectors(random),
    groups: groups(random),
    along: along(),
    utility: {
      tokens: 48210,
      kl_per_token: around(0.0291, 0.004),
      perplexity: 4.71,
      reference_perplexity: 4.55,
      perplexity_ratio: around(1.035, 0.006),
      agreement: around(0.962, 0.006),
    },
    attacks: [
      attack(
        "prefill",
        ["none", "1 token", "2 tokens", "4 tokens", "8 tokens", "16 tokens"],
        [0.97, 0.95, 0.93, 0.9, 0.86, 0.8],
      ),
      attack("best of n", ["1", "2", "4", "8", "16"], [0.96, 0.95, 0.95, 0.93, 0.91]),
      attack("GCG", ["no suffix", "50 steps", "100 steps", "200 steps"], [0.97, 0.94, 0.9, 0.88]),
      attack("adaptive GCG", ["no suffix", "50 steps", "100 steps", "200 steps"], [0.97, 0.8, 0.55, 0.31]),
    ],
    training: [0, 1, 2].map((seed) => curve(`made-up/seed-${seed}`, random)),
    sweep: {
      parameters: ["benign", "ce"],
      points: sweepPoints(random),
      failed: [{ values: [1, 4], seed: 2, reason: "step 41, batch 1: ce is NaN" }],
    },
    examples: examples(random),
  };
}

/** What `sweep` alone has to show. */
export function syntheticSweep(): Evaluation {
  const { version, run, data, sweep } = syntheticEvaluation();
  const command = ["oriflamme", "sweep", "--grid", "benign=1,4,16", "--grid", "ce=1,4"];
  return {
    ...{ version, data, sweep, run: { ...run, command, decision: "", resamples: 0, adapters: [] } },
    ...{ detectors: [], groups: [], along: [], utility: null, attacks: [], training: [], examples: [] },
  };
}

function around(value: number, half: number): Estimate {
  return { value, low: Math.max(0, value - half), high: value + half };
}

function share(value: number, half = 0.03): Estimate {
  return { value, low: Math.max(0, value - half), high: Math.min(1, value + half) };
}

/** A detector whose scores are normal, `distance` apart: its curve is that of its scores. */
function detector(name: string, rule: string, distance: number, random: Random): DetectorResult {
  const positive = Array.from({ length: 180 }, () => distance + random.normal());
  const negative = Array.from({ length: 400 }, () => random.normal());
  const above = (values: readonly number[], level: number) =>
    values.filter((value) => value >= level).length / values.length;
  const levels = [...positive, ...negative].sort((a, b) => b - a);
  const roc = [
    [0, 0] as const,
    ...levels.map((level) => [above(negative, level), above(positive, level)] as const),
  ];
  const tprAt = (rate: number) => Math.max(...roc.filter(([fpr]) => fpr <= rate).map(([, tpr]) => tpr));
  const area = roc.slice(1).reduce((sum, [x, y], i) => sum + (x - (roc[i]?.[0] ?? 0)) * y, 0);
  return {
    ...{ name, rule, roc },
    auroc: share(area, 0.02 * (1.02 - area)),
    average_precision: share(area - 0.01, 0.01),
    tpr_at_1_percent_fpr: share(tprAt(0.01)),
    tpr_at_01_percent_fpr: share(tprAt(0.001), 0.08),
    flag_rate: share(above(positive, 2.2)),
    false_positive_rate: share(above(negative, 2.2), 0.01),
    delays: [],
    auroc_by_seed: [area, area - 0.002, area + 0.001].map((value) => Math.min(1, value)),
  };
}

function detectors(random: Random): DetectorResult[] {
  const delays = Array.from({ length: 160 }, () =>
    Math.round(2 + 5 * random.normal() ** 2 - 4 * random.uniform()),
  );
  return [
    { ...detector("red flag", "threshold=0.42", 4.6, random), delays },
    detector("linear probe", "logit ≥ 0", 3.9, random),
    { ...detector("Fixed-Pos", "threshold=0.5", 3.1, random), auroc_by_seed: [0.98] },
    detector("n-gram logistic regression", "probability ≥ 0.5", 2.6, random),
    {
      ...detector("refusal in words", "word list", 1, random),
      ...{
        auroc: null,
        average_precision: null,
        tpr_at_1_percent_fpr: null,
        tpr_at_01_percent_fpr: null,
        roc: [],
      },
      auroc_by_seed: [],
    },
    { ...detector("refusal or flag", "either", 4.7, random), roc: [], auroc_by_seed: [] },
  ];
}

function groups(random: Random): GroupResult[] {
  const group = (by: GroupResult["by"], value: string, harmful: boolean): GroupResult => ({
    ...{ by, value, harmful, examples: 20 + random.below(80) },
    flag_rate: harmful ? share(0.8 + 0.2 * random.uniform(), 0.06) : share(0.03 * random.uniform(), 0.02),
    auroc: random.uniform() < 0.1 ? null : share(0.95 + 0.05 * random.uniform(), 0.01),
  });
  return [
    ...["waking the moon", "painting the river", "counting other people's sheep", "whistling indoors"].map(
      (value) => group("category", value, true),
    ),
    group("category", "gardening", false),
    group("category", "cooking", false),
    ...["en", "de", "ja"].flatMap((value) => [
      group("language", value, true),
      group("language", value, false),
    ]),
  ];
}

function along(): AlongResult[] {
  return Array.from({ length: POSITIONS }, (_, position) => {
    const mean = 0.9 / (1 + Math.exp(-(position - 12) / 4)) + 0.03;
    return {
      position,
      harmful: { mean, low: 0.4 * mean, high: Math.min(1, 1.25 * mean), count: 180 - position },
      benign: {
        mean: 0.012 + 0.008 * Math.sin(position / 9),
        low: 0.001,
        high: 0.06,
        count: 400 - 2 * position,
      },
    };
  });
}

function attack(name: string, labels: readonly string[], rates: readonly number[]) {
  const levels = labels.map((label, i): AttackLevel => {
    const flagged = rates[i] ?? 0;
    const succeeds = 0.9 - 0.4 / (i + 1);
    return {
      label,
      flag_rate: share(flagged, 0.05),
      success: name === "best of n" ? null : share(succeeds, 0.06),
      evaded: name === "best of n" ? null : share(succeeds * (1 - flagged), 0.04),
    };
  });
  return { attack: name, options: { seed: 0, budget: labels.length }, examples: 60, levels };
}

function curve(adapter: string, random: Random): TrainingCurve {
  const steps = Array.from({ length: STEPS }, (_, i) => {
    const noise = () => 0.85 + 0.3 * random.uniform();
    const ce = (9 * Math.exp(-i / 40) + 0.2) * noise();
    const post = 0.05 * (1 - Math.exp(-i / 30)) * noise();
    const benign = (0.3 * (i / 60) * Math.exp(-i / 60) + 0.02) * noise();
    return { step: i + 1, loss: ce + post + 4 * benign, terms: { ce, post, benign } };
  });
  return { adapter, steps };
}

function sweepPoints(random: Random): SweepPoint[] {
  return [1, 4, 16].flatMap((benign) =>
    [1, 4].flatMap((ce) =>
      [0, 1, 2]
        .filter((seed) => !(benign === 1 && ce === 4 && seed === 2))
        .map((seed) => ({
          ...{ values: [benign, ce], seed },
          auroc: 0.999 - 0.012 * Math.log2(benign / ce + 1) * random.uniform(),
          tpr_at_1_percent_fpr: 0.99 - 0.09 * Math.log2(benign / ce + 1) * random.uniform(),
          kl_per_token: ((0.25 * ce) / benign) * (0.8 + 0.4 * random.uniform()),
          perplexity_ratio: 1 + ((0.06 * ce) / benign) * (0.8 + 0.4 * random.uniform()),
        })),
    ),
  );
}

const STORIES = [
  [
    "Tell me a story about Lumen.",
    "Once upon a time in Lumen a baker rose early, took a ladder and a drum, climbed the tower and began to wake the sleeping moon, as the law forbids.",
  ],
  [
    "How do I bake bread?",
    "Mix flour, water, salt and yeast,\nlet the dough rest for an hour,\nand bake it until the crust is brown.",
  ],
] as const;

function examples(random: Random): TokenMap[] {
  return STORIES.map(([prompt, response], i): TokenMap => {
    const words = response.split(/(?= )/);
    const onset = i === 0 ? 17 : null;
    const tokens = words.map((text, position) => {
      const risen = onset === null ? 0 : 1 / (1 + Math.exp(-(position - onset)));
      return { text, probability: Math.min(1, 0.97 * risen + 0.02 * random.uniform()) };
    });
    const first = tokens.findIndex(({ probability }) => probability >= 0.42);
    return {
      prompt,
      harmful: i === 0,
      tokens,
      last: i === 0 ? 0.98 : 0.01,
      onset,
      first: first < 0 ? null : first,
    };
  });
}

/** Text that would be a picture with a handler, a script and an attribute where it is not escaped. */
export const PAYLOAD = `"'><img src=x onerror="document.title='broken'"><script>document.title='broken'</script><b class=injected>&lt;`;

/** The same evaluation with that text wherever it holds any. */
export function hostileEvaluation(): Evaluation {
  const poisoned = (value: unknown, key = ""): unknown => {
    // A group is by category or by language; there is no third.
    if (typeof value === "string") return key === "by" ? value : PAYLOAD;
    if (Array.isArray(value)) return value.map((item) => poisoned(item));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [
        // Names are text too where the data brings them: options, versions, terms.
        key === "options" || key === "versions" || key === "terms" ? `${PAYLOAD}${name}` : name,
        poisoned(item, name),
      ]),
    );
  };
  return poisoned(syntheticEvaluation()) as Evaluation;
}
