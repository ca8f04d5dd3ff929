import type { RedFlagOptions } from "../flag/vocab.js";
import type { Example } from "../formats/jsonl.js";
import type { Model } from "../model/model.js";
import { digestOf, digestOfParameters, type Fact, type Fingerprint, factsOf } from "../train/fingerprint.js";
import { type GivenHyperparameters, type GridAxis, gridPoints } from "./grid.js";
import type { BothClasses } from "./sweep.js";

/** What the points of a sweep have in common. */
export interface SweepSettings {
  readonly axes: readonly GridAxis[];
  /** Hyperparameters where no axis says otherwise. */
  readonly given: GivenHyperparameters;
  /** How the flag enters the vocabulary. */
  readonly flag: RedFlagOptions;
  readonly training: BothClasses<Example>;
  readonly heldOut: BothClasses<Example>;
  /** Most tokens of a held-out response. */
  readonly maxResponse: number;
  /** Of the program and the machine. */
  readonly facts: Readonly<Record<string, Fact>>;
}

/** All that decides the numbers of a point besides its own values and seed. */
export async function sweepFingerprint(model: Model, settings: SweepSettings): Promise<Fingerprint> {
  const { axes, given, flag, training, heldOut, maxResponse, facts } = settings;
  const [base] = gridPoints([], [0], given);
  const own = new Set(["seed", ...axes.flatMap(({ name }) => [name, `loss.${name}`])]);
  const shared = Object.entries(factsOf(base?.hyperparameters ?? {})).filter(([name]) => !own.has(name));
  return {
    ...Object.fromEntries(shared),
    "most tokens of a held-out response": maxResponse,
    ...factsOf(flag, "flag."),
    ...factsOf(model.config, "model."),
    "the model's weights": await digestOfParameters(model.weights),
    "harmful data": await digestOf(JSON.stringify(training.harmful)),
    "benign data": await digestOf(JSON.stringify(training.benign)),
    "held-out harmful data": await digestOf(JSON.stringify(heldOut.harmful)),
    "held-out benign data": await digestOf(JSON.stringify(heldOut.benign)),
    ...facts,
  };
}
