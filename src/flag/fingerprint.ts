import { digestOf, digestOfParameters, type Fingerprint, factsOf } from "../train/fingerprint.js";
import type { FlagSequence } from "./data.js";
import type { RedFlagHyperparameters } from "./train.js";
import type { FlaggedModel } from "./vocab.js";

/** What decides the numbers of a run that trains the flag: settings, base model, flag, and data as ids. */
export async function redFlagFingerprint(
  flagged: FlaggedModel,
  hyper: RedFlagHyperparameters,
  data: { readonly harmful: readonly FlagSequence[]; readonly benign: readonly FlagSequence[] },
): Promise<Fingerprint> {
  // Neither a limit to stop at nor running blocks again changes a number of the run.
  const { divergence, gradientCheckpointing, ...settings } = hyper;
  const { model, initial } = flagged;
  const rows = { input: [...initial.input], output: [...initial.output] };
  return {
    ...factsOf(settings),
    ...factsOf(model.config, "model."),
    "the model's weights": await digestOfParameters(model.weights),
    "the flag's token": flagged.token,
    "the flags' ids": flagged.flagIds.join(", "),
    "the flags' categories": flagged.categories.join(", "),
    "the flags' first values": await digestOf(JSON.stringify(rows)),
    "harmful data": await digestOf(JSON.stringify(data.harmful)),
    "benign data": await digestOf(JSON.stringify(data.benign)),
  };
}
