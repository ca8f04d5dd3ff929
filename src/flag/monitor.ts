import type { Monitor, Observation, Verdict } from "../generate/monitor.js";
import { argmaxOf, logSumExp } from "../generate/sample.js";
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
 * Watches the flag's probability in the raw logits. Only the decision `sampled` lets the model draw the flag
 * itself, which then stays in the context, as in training; under every other decision the flag is read and never
 * fed back.
 */
export function flagMonitor(flagId: number, decision: Decision, policy: Policy): Monitor {
  const tracker = new DecisionTracker(decision);
  return {
    ...(decision.kind === "sampled" ? {} : { banned: new Set([flagId]) }),
    observe({ logits, sampled }: Observation): { verdict: Verdict; notes: FlagNotes } {
      const flagProbability = Math.exp((logits[flagId] as number) - logSumExp(logits));
      const likeliest = decision.kind === "argmax" && argmaxOf(logits) === flagId;
      const raised = tracker.update({ probability: flagProbability, likeliest, sampled: sampled === flagId });
      return { verdict: raised ? verdictOf(policy, sampled, flagId) : CONTINUE, notes: { flagProbability, raised } };
    },
  };
}

const CONTINUE: Verdict = { action: "continue" };

function verdictOf(policy: Policy, sampled: number, flagId: number): Verdict {
  switch (policy.kind) {
    case "stop":
      return { action: "stop", reason: "flag" };
    case "replace":
      return { action: "replace", text: policy.text };
    case "annotate":
      return sampled === flagId ? { action: "append", ids: [flagId] } : CONTINUE;
  }
}
