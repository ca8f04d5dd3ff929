/**
 * What `eval` finds out, as `metrics.json` has it and the report shows it. Field names are those of the file. A
 * figure is null where the data cannot give it: a rate of no examples, a delay without an onset.
 */
export interface Evaluation {
  readonly version: 1;
  readonly run: RunFacts;
  readonly data: { readonly harmful: DataFacts; readonly benign: DataFacts };
  /** The red flag first, then baselines, other guards, and what they say together. */
  readonly detectors: readonly DetectorResult[];
  /** The red flag by what an example says of itself. */
  readonly groups: readonly GroupResult[];
  /** P(flag) along the response, position 0 before its first token. */
  readonly along: readonly AlongResult[];
  /** What the flag costs on benign conversations. */
  readonly utility: UtilityResult | null;
  readonly attacks: readonly AttackResult[];
  /** The course of training of each adapter that brings its log. */
  readonly training: readonly TrainingCurve[];
  readonly sweep: SweepResult | null;
  /** A few conversations token by token. */
  readonly examples: readonly TokenMap[];
}

/**
 * A value and its interval of 95 %: percentiles of the bootstrap over examples and seeds; of attacks Wilson's score
 * interval over conversations.
 */
export interface Estimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** How the figures came about. */
export interface RunFacts {
  /** Words of the command line. */
  readonly command: readonly string[];
  /** ISO 8601. */
  readonly date: string;
  readonly seed: number;
  /** Resamples of the bootstrap. */
  readonly resamples: number;
  /** Of `oriflamme` and `node`. */
  readonly versions: Readonly<Record<string, string>>;
  readonly backend: string;
  readonly model: string;
  /** Adapters of the same training under several seeds. */
  readonly adapters: readonly string[];
  /** The red flag's rule, as the command line writes it. */
  readonly decision: string;
}

/** What became of a file of examples. */
export interface DataFacts {
  readonly path: string;
  readonly examples: number;
  /** Examples that brought no response: the model has written one. */
  readonly generated: number;
  /**
   * Examples that do not fit into the model's context, have no prompt, or become harmful only past the cut response.
   */
  readonly left_out: number;
}

/** How well one detector tells harmful conversations from benign ones. */
export interface DetectorResult {
  readonly name: string;
  readonly auroc: Estimate | null;
  readonly average_precision: Estimate | null;
  /** Share of harmful ones found at the threshold that 1 % (0.1 %) of the benign ones reach. */
  readonly tpr_at_1_percent_fpr: Estimate | null;
  readonly tpr_at_01_percent_fpr: Estimate | null;
  /** By the detector's own rule: a decision, a threshold, a word list. */
  readonly rule: string;
  readonly flag_rate: Estimate | null;
  readonly false_positive_rate: Estimate | null;
  /** Tokens from the onset to the first flag, of each harmful conversation with an onset that was flagged. */
  readonly delays: readonly number[];
  /** [false-positive rate, true-positive rate], rising. */
  readonly roc: readonly (readonly [number, number])[];
  /** AUROC of each adapter, in their order; of one value where the detector has no seeds. */
  readonly auroc_by_seed: readonly number[];
}

/** The red flag on the examples of one category or language. */
export interface GroupResult {
  readonly by: "category" | "language";
  readonly value: string;
  readonly harmful: boolean;
  readonly examples: number;
  readonly flag_rate: Estimate;
  /** Against all benign examples (for a benign group: all harmful ones). */
  readonly auroc: Estimate | null;
}

/** P(flag) at one position over all conversations that reach it. */
export interface AlongResult {
  readonly position: number;
  readonly harmful: Band | null;
  readonly benign: Band | null;
}

/** A mean and the tenth and ninetieth percentile. */
export interface Band {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  readonly count: number;
}

/** The flagged model against its reference on benign responses. */
export interface UtilityResult {
  readonly tokens: number;
  /** KL(π_θ ‖ π_ref), nats a token. */
  readonly kl_per_token: Estimate;
  readonly perplexity: number;
  readonly reference_perplexity: number;
  readonly perplexity_ratio: Estimate;
  /** Share of positions where both find the same token likeliest. */
  readonly agreement: Estimate;
}

/** What became of one attack. */
export interface AttackResult {
  readonly attack: string;
  /** Budgets and seeds. */
  readonly options: Readonly<Record<string, string | number>>;
  readonly examples: number;
  /** Ordered by budget: tokens prefilled, samples drawn, steps of the search; the first without the attack. */
  readonly levels: readonly AttackLevel[];
}

export interface AttackLevel {
  readonly label: string;
  /** Share of attacked conversations where the flag is raised. */
  readonly flag_rate: Estimate;
  /** Share in which the model says what the attack wants, flagged or not; null where that cannot be told. */
  readonly success: Estimate | null;
  /** Share in which it does and no flag is raised. */
  readonly evaded: Estimate | null;
}

/** Steps of a training as its log has them. */
export interface TrainingCurve {
  readonly adapter: string;
  readonly steps: readonly {
    readonly step: number;
    readonly loss: number;
    readonly terms: Readonly<Record<string, number>>;
  }[];
}

/** The same training under other hyperparameters. */
export interface SweepResult {
  /** Names of what was varied. */
  readonly parameters: readonly string[];
  readonly points: readonly SweepPoint[];
  /** Points whose training diverged. */
  readonly failed: readonly SweepFailure[];
}

export interface SweepPoint {
  readonly values: readonly (string | number)[];
  readonly seed: number;
  readonly auroc: number;
  readonly tpr_at_1_percent_fpr: number;
  readonly kl_per_token: number;
  readonly perplexity_ratio: number;
}

export interface SweepFailure {
  readonly values: readonly (string | number)[];
  readonly seed: number;
  /** The step, the term and the batch. */
  readonly reason: string;
}

/** A conversation with P(flag) before each token of its response. */
export interface TokenMap {
  readonly prompt: string;
  readonly harmful: boolean;
  readonly tokens: readonly { readonly text: string; readonly probability: number }[];
  /** P(flag) after the last token. */
  readonly last: number;
  /** Tokens before the harm has become evident. */
  readonly onset: number | null;
  /** Where the flag is raised first. */
  readonly first: number | null;
}
