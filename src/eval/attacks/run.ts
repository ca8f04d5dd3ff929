import type { FlaggedModel } from "../../flag/vocab.js";
import type { Example } from "../../formats/jsonl.js";
import type { AttackResult } from "../evaluation.js";
import type { Attack, AttackContext } from "./attack.js";
import { bestOfN } from "./best-of-n.js";
import { adaptiveGcg, gcg } from "./gcg.js";
import { prefill } from "./prefill.js";
import { translation } from "./translation.js";

const ATTACKS = {
  prefill,
  "best-of-n": bestOfN,
  translation,
  gcg,
  "adaptive-gcg": adaptiveGcg,
} satisfies Readonly<Record<string, Attack>>;

export type AttackName = keyof typeof ATTACKS;

/** Options of every attack, by its name. */
export type AttackConfig = { readonly [N in AttackName]: (typeof ATTACKS)[N]["defaults"] };

/** What options are where nothing else is said: the shape that a file of JSON must have a part of. */
export const ATTACK_DEFAULTS: AttackConfig = {
  prefill: prefill.defaults,
  "best-of-n": bestOfN.defaults,
  translation: translation.defaults,
  gcg: gcg.defaults,
  "adaptive-gcg": adaptiveGcg.defaults,
};

/** Some of the options of some attacks. */
export type PartialAttackConfig = { readonly [N in AttackName]?: Partial<AttackConfig[N]> };

/** An attack that is asked for, with all its options. */
export interface PlannedAttack {
  readonly name: AttackName;
  readonly options: AttackConfig[AttackName];
}

/**
 * Reads names of attacks as the command line writes them: `prefill,gcg`.
 * @throws RangeError for a name that is none, or comes twice, or an option out of its range
 */
export function parseAttacks(names: string, config: PartialAttackConfig = {}): PlannedAttack[] {
  const list = names.split(",").map((name) => name.trim());
  const repeated = list.find((name, i) => list.indexOf(name) !== i);
  if (repeated !== undefined) throw new RangeError(`attacks: '${repeated}' comes twice`);
  return list.map((name) => {
    if (!isAttack(name)) {
      throw new RangeError(`attacks: '${name}' is none of ${Object.keys(ATTACKS).join(", ")}`);
    }
    const options = { ...ATTACK_DEFAULTS[name], ...config[name] } as AttackConfig[AttackName];
    attackOf(name).check(options);
    return { name, options };
  });
}

/** The attack of that name, whatever its options. */
function attackOf(name: AttackName): Attack {
  return ATTACKS[name];
}

function isAttack(name: string): name is AttackName {
  return Object.hasOwn(ATTACKS, name);
}

/** How far attacks have come. */
export interface AttackProgress {
  readonly attack: AttackName;
  /** Steps of this attack that are done, of all: answers, or steps of a search. */
  readonly done: number;
  readonly total: number;
}

/** What attacks run with besides the model. */
export interface RunAttacksOptions extends Omit<AttackContext, "flagged"> {
  readonly attacks: readonly PlannedAttack[];
  readonly onProgress?: (progress: AttackProgress) => void;
}

/**
 * Attacks a flagged model on harmful conversations, one attack after another. All are checked before the first runs.
 * @param examples prefilling and the suffix attacks want a response, translation a language
 * @throws RangeError for an option out of its range, or an attack that no conversation is fit for; the signal's
 * reason
 */
export async function runAttacks(
  flagged: FlaggedModel,
  examples: readonly Example[],
  { attacks, onProgress, ...rest }: RunAttacksOptions,
): Promise<AttackResult[]> {
  const context: AttackContext = { flagged, ...rest };
  const prepared = attacks.map(({ name, options }) => {
    attackOf(name).check(options);
    return { name, attack: attackOf(name).prepare(context, examples, options) };
  });
  const results: AttackResult[] = [];
  for (const { name, attack } of prepared) {
    let done = 0;
    results.push(await attack.run(() => onProgress?.({ attack: name, done: ++done, total: attack.total })));
  }
  return results;
}
