import { ADVERSARIAL, attackProbability } from "../flag/adversarial.js";
import { FLAG_LOSS } from "../flag/loss.js";
import {
  checkHyperparameters,
  RED_FLAG_DEFAULTS,
  type RedFlagHyperparameters,
  type RedFlagTraining,
} from "../flag/train.js";

/** A hyperparameter, and the values of it that a sweep tries. */
export interface GridAxis {
  /** Of a number in `RedFlagHyperparameters`, of a weight in its `loss`, or `adversarial.` and one in there. */
  readonly name: string;
  readonly values: readonly number[];
}

/** A training of a sweep. */
export interface GridPoint {
  /** Of each axis. */
  readonly values: readonly number[];
  readonly hyperparameters: RedFlagHyperparameters;
}

/** Hyperparameters, some of them given; the rest are `RED_FLAG_DEFAULTS`. */
export type GivenHyperparameters = Pick<RedFlagTraining, keyof RedFlagHyperparameters>;

/** Of an axis in `adversarial`, which has `steps` of its own. */
const ADVERSARIAL_PREFIX = "adversarial.";

/** Names that an axis may have. The seed is no hyperparameter to choose by its result. */
export function axisNames(): string[] {
  return [
    ...numbersOf(FLAG_LOSS),
    ...numbersOf(RED_FLAG_DEFAULTS).filter((name) => name !== "seed"),
    ...numbersOf(ADVERSARIAL).map((name) => ADVERSARIAL_PREFIX + name),
  ];
}

function numbersOf(settings: object): string[] {
  return Object.entries(settings).flatMap(([name, value]) => (typeof value === "number" ? [name] : []));
}

/**
 * Reads an axis as the command line writes it: `benign=1,4,16`.
 * @throws RangeError that names the text
 */
export function parseAxis(text: string): GridAxis {
  const [, name = "", list = ""] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
  const names = axisNames();
  if (!names.includes(name)) {
    throw new RangeError(`grid must be NAME=VALUE,… with a NAME of ${names.join(", ")}, got '${text}'`);
  }
  const values = list.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (!values.every(Number.isFinite))
    throw new RangeError(`grid: '${text}' needs numbers with commas between`);
  const repeated = values.find((value, i) => values.indexOf(value) < i);
  if (repeated !== undefined) throw new RangeError(`grid: '${text}' has ${repeated} twice`);
  return { name, values };
}

/**
 * Every combination of the axes' values under every seed. All combinations come under the first seed before any
 * comes again, so that a sweep that is stopped has seen the whole grid as soon as it can.
 * @throws RangeError where two axes have a name, or a combination has a hyperparameter out of its range
 */
export function gridPoints(
  axes: readonly GridAxis[],
  seeds: readonly number[],
  given: GivenHyperparameters,
): GridPoint[] {
  const names = axes.map(({ name }) => name);
  const repeated = names.find((name, i) => names.indexOf(name) < i);
  if (repeated !== undefined) throw new RangeError(`grid: there are two of '${repeated}'`);
  const combinations = axes.reduce<number[][]>(
    (points, { values }) => points.flatMap((point) => values.map((value) => [...point, value])),
    [[]],
  );
  return seeds.flatMap((seed) =>
    combinations.map((values) => {
      const hyperparameters = withValues(given, names, values, seed);
      checkHyperparameters(hyperparameters);
      const { adversarial, harmfulBatch, benignBatch } = hyperparameters;
      attackProbability(adversarial.share, { harmful: harmfulBatch, benign: benignBatch });
      return { values, hyperparameters };
    }),
  );
}

function withValues(
  given: GivenHyperparameters,
  names: readonly string[],
  values: readonly number[],
  seed: number,
): RedFlagHyperparameters {
  const own: Record<"top" | "loss" | "adversarial", Record<string, number>> = {
    ...{ top: {}, loss: {}, adversarial: {} },
  };
  names.forEach((name, i) => {
    const value = values[i] as number;
    if (name.startsWith(ADVERSARIAL_PREFIX)) own.adversarial[name.slice(ADVERSARIAL_PREFIX.length)] = value;
    else if (Object.hasOwn(FLAG_LOSS, name)) own.loss[name] = value;
    else own.top[name] = value;
  });
  return {
    ...{ ...RED_FLAG_DEFAULTS, ...given, ...own.top },
    loss: { ...FLAG_LOSS, ...given.loss, ...own.loss },
    adversarial: { ...ADVERSARIAL, ...given.adversarial, ...own.adversarial },
    seed,
  };
}
