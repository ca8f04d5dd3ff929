// What the experiments on small models share: their command line, and how a flag is trained there.

import { parseArgs } from "node:util";
import { createBackend } from "oriflamme";

/**
 * The command line: --seed, --backend, --threads, and a number for each name of `defaults` (`baseSteps` is
 * --base-steps).
 * @param {Record<string, number>} defaults
 * @returns {{seed: number, backend: string, threads?: number} & Record<string, number>}
 */
export function experimentOptions(defaults) {
  const numbers = { seed: 0, ...defaults };
  const flagOf = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const options = Object.entries(numbers).map(([name, value]) => [
    flagOf(name),
    { type: "string", default: `${value}` },
  ]);
  const { values } = parseArgs({
    options: {
      ...Object.fromEntries(options),
      backend: { type: "string", default: "auto" },
      threads: { type: "string" },
    },
  });
  return {
    ...Object.fromEntries(Object.keys(numbers).map((name) => [name, Number(values[flagOf(name)])])),
    backend: values.backend,
    ...(values.threads === undefined ? {} : { threads: Number(values.threads) }),
  };
}

/** The backend that the options name. */
export function experimentBackend({ backend, threads }) {
  return createBackend({ kind: backend, revectorize: true, ...(threads === undefined ? {} : { threads }) });
}

/** Hyperparameters of a flag over models of a width of 64. */
export const SMALL_FLAG = { lr: 2e-3, rank: 16, alpha: 32, bucket: 16, harmfulBatch: 8, benignBatch: 8 };
