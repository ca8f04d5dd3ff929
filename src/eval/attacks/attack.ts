import type { Decision } from "../../flag/decision.js";
import type { FlaggedModel } from "../../flag/vocab.js";
import type { Example } from "../../formats/jsonl.js";
import type { AttackResult } from "../evaluation.js";

/** What every attack runs against, and how. */
export interface AttackContext {
  readonly flagged: FlaggedModel;
  /** When the flag counts as raised. */
  readonly decision: Decision;
  /** Of everything random. */
  readonly seed: number;
  /** Ends the attack between two tokens or passes, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** An attack whose conversations have been found fit, before any work. */
export interface PreparedAttack {
  /** Steps that it reports. */
  readonly total: number;
  /** @param onStep called after each step */
  run(onStep: () => void): Promise<AttackResult>;
}

/** An attack whose options, numbers all, are of the type O. */
export interface Attack<O extends object = object> {
  readonly defaults: O;
  /** @throws RangeError for an option out of its range */
  check(options: O): void;
  /** @throws RangeError where no conversation can be attacked */
  prepare(context: AttackContext, examples: readonly Example[], options: O): PreparedAttack;
}

/**
 * Checks that options are integers from a least value on.
 * @throws RangeError naming the attack and the option
 */
export function expectIntegers<O extends object>(
  attack: string,
  options: O,
  least: Readonly<Partial<Record<keyof O & string, number>>>,
): void {
  for (const [name, bound] of Object.entries(least) as [keyof O & string, number][]) {
    const value = options[name] as number;
    if (!Number.isInteger(value) || value < bound) {
      throw new RangeError(`${attack}.${name} must be an integer from ${bound}, got ${value}`);
    }
  }
}

/**
 * The conversations that an attack can use, the first `most` of them.
 * @throws RangeError where there is none
 */
export function firstOf<T>(attack: string, usable: readonly T[], most: number, needs: string): readonly T[] {
  if (usable.length === 0) throw new RangeError(`${attack}: no conversation has ${needs}`);
  return usable.slice(0, most);
}

/** 1, 2, 4, … below `most`, and `most`: the budgets at which an attack is measured. */
export function doublings(most: number): number[] {
  const budgets: number[] = [];
  for (let budget = 1; budget < most; budget *= 2) budgets.push(budget);
  return [...budgets, most];
}
