import type { Monitor, Observation, Verdict } from "../generate/monitor.js";
import { type Decision, DecisionTracker } from "./decision.js";
import type { Policy } from "./policy.js";

/** What the flag's monitor notes at every position. */
export interface FlagNotes extends Readonly<Record<string, unknown>> {
  /** P(flag) from the raw logits. */
  readonly flagProbability: number;
  /** Whether the decision was met here. */
  readonly raised: boolean;
}

/**
 * Watches the flag's probability in the raw logits. Only under the decision `sampled` does the model draw the flag
 * itself; under every other it is banned from sampling, and the policy places it.
 */
export function flagMonitor(flagId: number, decision: Decision, policy: Policy): Monitor {
  const tracker = new DecisionTracker(decision);
  let isPlaced = false;
  const verdict = (isSampled: boolean): Verdict => {
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
    watches: [flagId],
    ...(decision.kind === "sampled" ? {} : { banned: new Set([flagId]) }),
    observe({ logits, likeliest, logSumExp, sampled }: Observation): { verdict: Verdict; notes: FlagNotes } {
      const flagProbability = Math.exp((logits[0] as number) - logSumExp);
      const isSampled = sampled === flagId;
      const raised = tracker.update({
        probability: flagProbability,
        likeliest: likeliest === flagId,
        sampled: isSampled,
      });
      return {
        verdict: raised ? verdict(isSampled) : { action: "continue" },
        notes: { flagProbability, raised },
      };
    },
  };
}
