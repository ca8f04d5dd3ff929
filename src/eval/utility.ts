import type { Utility } from "../flag/score.js";
import { type BootstrapOptions, bootstrap } from "./bootstrap.js";
import type { UtilityResult } from "./evaluation.js";

/**
 * What the flag costs on benign conversations, a token: sums over all conversations and adapters by all their
 * tokens.
 * @param seeds of each adapter: one a conversation, of the same conversations
 * @returns null where there is no token
 */
export function utilityResult(
  seeds: readonly (readonly Utility[])[],
  options: BootstrapOptions,
): UtilityResult | null {
  const all = seeds.flat();
  const whole = sums(all, () => 1);
  if (whole.tokens === 0) return null;
  const count = seeds[0]?.length ?? 0;
  const estimates = bootstrap(
    [seeds.length, count],
    ([times, counts]) => {
      const drawn = sums(all, (i) => (times?.[Math.floor(i / count)] ?? 0) * (counts?.[i % count] ?? 0));
      return {
        kl: drawn.kl / drawn.tokens,
        ratio: Math.exp((drawn.loss - drawn.refLoss) / drawn.tokens),
        agreement: drawn.agreements / drawn.tokens,
      };
    },
    options,
  );
  return {
    tokens: whole.tokens,
    kl_per_token: estimates.kl,
    perplexity: Math.exp(whole.loss / whole.tokens),
    reference_perplexity: Math.exp(whole.refLoss / whole.tokens),
    perplexity_ratio: estimates.ratio,
    agreement: estimates.agreement,
  };
}

function sums(all: readonly Utility[], times: (index: number) => number): Utility {
  const total = { tokens: 0, kl: 0, loss: 0, refLoss: 0, agreements: 0 };
  all.forEach((utility, i) => {
    const weight = times(i);
    total.tokens += weight * utility.tokens;
    total.kl += weight * utility.kl;
    total.loss += weight * utility.loss;
    total.refLoss += weight * utility.refLoss;
    total.agreements += weight * utility.agreements;
  });
  return total;
}
