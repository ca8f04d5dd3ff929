import type { Monitor, Observation, Verdict } from "../generate/monitor.js";
import { type Decision, DecisionTracker } from "./decision.js";
import type { Policy } from "./policy.js";

/** What the flag's monitor notes at every position. */
export interface FlagNotes extends Readonly<Record<string, unknown>> {
  /** P(flag) from the raw logits, the sum over all flags. */
  readonly flagProbability: number;
  /** Of each flag alone, in the order in which they were given. */
  readonly flagProbabilities: readonly number[];
  /** The likeliest flag's id. */
  readonly flagId: number;
  /** Whether the decision was met here. */
  readonly raised: boolean;
}

/**
 * Watches the flag's probability in the raw logits. Only under the decision `sampled` does the model draw the flag
 * itself; under every other it is banned from sampling, and the policy places it. Of several flags the likeliest is
 * placed.
 * @param flags the flag's token id, or those of several
 */
export function flagMonitor(flags: number | readonly number[], decision: Decision, policy: Policy): Monitor {
  const flagIds = typeof flags === "number" ? [flags] : flags;
  const tracker = new DecisionTracker(decision);
  let isPlaced = false;
  const verdict = (flagId: number, isSampled: boolean): Verdict => {
    switch (policy.kind) {
      case "stop":
        return { action: "stop", reason: "flag" };
      case "replace":
        return { action: "replace", text: policy.text };
      case "annotate": {
        const place = isSampled || !(isPlaced || policy.shadow);
        isPlaced = true;
        return place ? { action: "append", ids: [flagId] } : { action: "continue" };
      }
    }
  };
  return {
    watches: flagIds,
    ...(decision.kind === "sampled" ? {} : { banned: new Set(flagIds) }),
    observe({ logits, likeliest, logSumExp, sampled }: Observation): { verdict: Verdict; notes: FlagNotes } {
      const flagProbabilities: number[] = [];
      let sum = 0;
      let likeliestFlag = 0;
      for (let i = 0; i < flagIds.length; i++) {
        const p = Math.exp((logits[i] as number) - logSumExp);
        flagProbabilities.push(p);
        sum += p;
        if (p > (flagProbabilities[likeliestFlag] as number)) likeliestFlag = i;
      }
      // Rounding may take the sum of several past 1.
      const flagProbability = Math.min(1, sum);
      const flagId = flagIds[likeliestFlag] as number;
      const isSampled = flagIds.includes(sampled);
      const raised = tracker.update({
        probability: flagProbability,
        likeliest: flagIds.includes(likeliest),
        sampled: isSampled,
      });
      return {
        verdict: raised ? verdict(isSampled ? sampled : flagId, isSampled) : { action: "continue" },
        notes: { flagProbability, flagProbabilities, flagId, raised },
      };
    },
  };
}
