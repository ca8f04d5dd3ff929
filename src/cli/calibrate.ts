import type { Command } from "commander";
import { FormatError } from "../errors.js";
import { calibrate, type LevelRule, parseLevelRule } from "../flag/calibrate.js";
import { type Calibration, dataDigest } from "../flag/calibration.js";
import { promptFits, respond, sequenceToRead } from "../flag/conversation.js";
import type { FlagSequence } from "../flag/data.js";
import { formatDecision } from "../flag/decision.js";
import { saveCalibration } from "../flag/store.js";
import type { FlaggedModel } from "../flag/vocab.js";
import { readJsonLines } from "../formats/jsonl.js";
import { type ModelOptions, withModel } from "./load.js";
import { dtypeOption, integer, number, parsed } from "./options.js";
import { jsonLine, progressBar } from "./terminal.js";

interface CalibrateCommandOptions extends ModelOptions {
  readonly adapter: string;
  readonly benign: string;
  readonly fpr: number;
  readonly decision?: LevelRule;
  readonly maxTokens: number;
}

/** `calibrate`: fits the flag's level to benign conversations, and stores it in the adapter. */
export function calibrateCommand(root: Command): Command {
  return root
    .command("calibrate")
    .description("fit the red flag's level to benign conversations that it was not trained on")
    .requiredOption("--model <path>", "Hugging Face folder, .gguf or llama2.c .bin")
    .requiredOption(
      "--adapter <folder>",
      "red flag of `train`; gets the level, which other commands then use",
    )
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .requiredOption("--benign <file>", "JSON Lines: prompt, response?")
    .option("--fpr <rate>", "most of benign conversations that may be flagged", number(1e-9, 1 - 1e-9), 0.01)
    .option(
      "--decision <rule>",
      "threshold, cumulative, ema=DECAY (default: threshold)",
      parsed(parseLevelRule),
    )
    .option("--max-tokens <n>", "most tokens of a response, given or generated", integer(1), 512)
    .action(run);
}

async function run(options: CalibrateCommandOptions): Promise<void> {
  const examples = await readJsonLines(options.benign);
  await withModel(options, async ({ flagged }) => {
    if (!flagged) throw new RangeError("calibrate needs --adapter");
    const { fpr, adapter, maxTokens, decision: rule = { kind: "threshold" } } = options;
    const sequences = examples
      .map((example) => sequenceToRead(flagged.model, example, maxTokens))
      .filter(({ prompt }) => promptFits(flagged.model, prompt));
    if (sequences.length === 0) {
      throw new FormatError(options.benign, "none of its prompts fits into the model's context");
    }
    const bar = progressBar("calibrate", sequences.length);
    let done = 0;
    const onRead = () => bar.update(++done);
    const fitted = async () => {
      const conversations: FlagSequence[] = [];
      for (const sequence of sequences) conversations.push(await answered(flagged, sequence, maxTokens));
      return calibrate(flagged, conversations, { rule, falsePositiveRate: fpr, onRead });
    };
    const decision = await fitted().finally(() => bar.stop());
    const data = await dataDigest(examples);
    const calibration: Calibration = {
      decision,
      fit: { falsePositiveRate: fpr, examples: sequences.length, data },
    };
    await saveCalibration(adapter, calibration);
    const line = { decision: formatDecision(decision), false_positive_rate: fpr, examples: sequences.length };
    const leftOut = examples.length - sequences.length;
    if (options.json) return jsonLine({ ...line, left_out: leftOut, data });
    process.stdout.write(
      `${adapter}: ${line.decision}, at most ${100 * fpr} % of benign conversations flagged; ` +
        `${sequences.length} examples${leftOut > 0 ? `, ${leftOut} left out` : ""}\n`,
    );
  });
}

/**
 * A conversation whose response the model writes where there is none. The flag is never put into its context: up to
 * where it is first raised, at whatever level, that changes nothing.
 */
async function answered(
  flagged: FlaggedModel,
  sequence: FlagSequence,
  maxTokens: number,
): Promise<FlagSequence> {
  if (sequence.response.length > 0) return sequence;
  const policy = { kind: "annotate", shadow: true } as const;
  return { ...sequence, response: await respond(flagged, sequence.prompt, { policy, maxTokens }) };
}
