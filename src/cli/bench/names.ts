/** What `bench` can be asked for; `suites.ts` has each. */
export const SUITE_NAMES = ["matmul", "attention", "train", "decode"] as const;

export type SuiteName = (typeof SUITE_NAMES)[number];
